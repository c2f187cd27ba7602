"""Make tests/fixtures/adapter_kinds: how PEFT trains each kind of adapter; needs torch and peft.

    python tests/peft/kinds_reference.py [KIND ...]

Written with transformers 5.24.0 and peft 0.21.2. A folder a kind holds an adapter as PEFT saves it, and reference.npz:
the loss of some words and an image with it, `gradient/<tensor>` of each trained tensor by its name in the file, and
`after/<tensor>`, what each is after three steps of plain gradient descent.

    python tests/peft/kinds_reference.py --read FOLDER NPZ

says how far PEFT's logits with the adapter in FOLDER are from those in NPZ.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict

FIXTURES = Path(__file__).parents[1] / "fixtures"
ROOT, BASE = FIXTURES / "adapter_kinds", FIXTURES / "adapters" / "bases" / "qwen2_vl_untied"
IDS, GRID = [5, 6, 30, 32, 31, 7, 3, 9], [1, 2, 2]
STEPS, RATE = 3, 0.02
LINEAR = r".*(q_proj|down_proj|blocks\.0\.attn\.qkv|blocks\.0\.mlp\.fc1|merger\.mlp\.0)"
PATTERNS = {"rank_pattern": {"q_proj": 3, r".*\.mlp\..*": 4}, "alpha_pattern": {"layers.0.mlp.down_proj": 9, "qkv": 5}}
KINDS = {
    "patterns": {**PATTERNS, "use_rslora": True},
    "dora": {"use_dora": True},
    "dora_dropout": {"use_dora": True, "lora_dropout": 0.5},
    "dora_patterns_bias": {**PATTERNS, "use_dora": True, "bias": "all", "lora_dropout": 0.5},
    "bias_all": {"bias": "all"},
    "bias_lora_only": {"bias": "lora_only"},
}


class EverySecond(torch.nn.Dropout):
    """A dropout that keeps every second number of a token, so that others can do the same."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop in training alone."""
        return x * 2 * (torch.arange(x.shape[-1]) % 2 == 0) if self.training else x


def main() -> None:
    """Write the kinds, or read an adapter."""
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--read"]:
        model = PeftModel.from_pretrained(base(), sys.argv[2]).eval()
        with torch.no_grad():
            found = model(**inputs()).logits.numpy()
        print(json.dumps(float(np.abs(found - np.load(sys.argv[3])["logits"]).max())))
        return
    for name in sys.argv[1:] or KINDS:
        write(ROOT / name, KINDS[name])


def write(folder: Path, settings: dict[str, object]) -> None:
    """Write a kind."""
    torch.manual_seed(len(folder.name))
    config = LoraConfig(r=2, lora_alpha=5, target_modules=LINEAR, **settings)
    model = get_peft_model(base(), config)
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    for module in model.modules():
        for name, dropout in getattr(module, "lora_dropout", {}).items():
            if isinstance(dropout, torch.nn.Dropout):
                module.lora_dropout[name] = EverySecond(dropout.p)
    model.peft_config["default"].base_model_name_or_path = BASE.name
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    (folder / "adapter_model.safetensors").chmod(0o644)
    model.train()
    optimizer = torch.optim.SGD(trained.values(), lr=RATE)
    numbers = {}
    for step in range(STEPS):
        loss = model(**inputs(), labels=inputs()["input_ids"]).loss
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            gradients = {name: one.grad for name, one in trained.items()}
            numbers["loss"] = loss.detach().numpy()
            numbers |= {f"gradient/{name}": one.numpy().copy() for name, one in saved(model, gradients).items()}
        optimizer.step()
    numbers |= {f"after/{name}": one.numpy() for name, one in saved(model, None).items()}
    np.savez_compressed(folder / "reference.npz", **numbers)


def saved(model: PeftModel, values: dict[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
    """Name tensors as the adapter's file does; the model's own where none are given."""
    return get_peft_model_state_dict(model, state_dict=values)


def base() -> torch.nn.Module:
    """Load the model that the adapters are for."""
    model = transformers.Qwen2VLForConditionalGeneration.from_pretrained(BASE, attn_implementation="eager")
    return model.eval()


def inputs() -> dict[str, torch.Tensor]:
    """Some words and an image."""
    ids = torch.tensor([IDS])
    pixels = np.random.default_rng(0).normal(size=(4, 96)).astype("float32")
    found = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.from_numpy(pixels)}
    if transformers.__version__.startswith("5"):
        found["mm_token_type_ids"] = (ids == 32).long()
    return {**found, "image_grid_thw": torch.tensor([GRID])}


if __name__ == "__main__":
    main()
