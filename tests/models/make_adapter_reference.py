"""Make the PEFT adapters that ours are compared with: of the tiny models of make_reference.py, and their logits.

Needs torch 2.13.0 (CPU), transformers 4.57.6 and peft 0.21.2, in an environment of its own; the tests need none.

    python tests/models/make_adapter_reference.py                         # write tests/fixtures/peft_adapter/
    python tests/models/make_adapter_reference.py --adapters qwen2_5_vl   # write that folder alone
    python tests/models/make_adapter_reference.py --check FOLDER qwen2_vl_tiny/tied NPZ

The last one says whether PEFT, with the adapter in FOLDER on that model, gives the logits that NPZ holds.

Each adapter's folder is what PEFT's `save_pretrained` writes; `logits.npz` beside it holds logits by the name of a
batch of its model's reference.npz.
"""

from __future__ import annotations

import argparse

import numpy as np
import reference_numbers as numbers
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from reference_batches import inputs_of
from reference_families import FAMILIES, FIXTURES

ROOT = FIXTURES / "peft_adapter"
BATCHES = ["mixed_left", "video"]
TOLERANCE = 5e-5
# The model and what is put on it. Between them: a list of endings and regular expressions, both scales, the towers,
# layers that are saved whole.
ADAPTERS = {
    "tied": (
        "qwen2_vl_tiny/tied",
        LoraConfig(
            r=3,
            lora_alpha=8,
            use_rslora=True,
            lora_dropout=0.5,
            target_modules=r".*language_model.*\.(q_proj|v_proj|down_proj)|.*visual.*\.qkv",
        ),
    ),
    "untied": (
        "qwen2_vl_tiny/untied",
        LoraConfig(
            r=2, lora_alpha=3, target_modules=["o_proj", "up_proj"], modules_to_save=["lm_head", "embed_tokens"]
        ),
    ),
    "qwen2_5_vl": (
        "qwen2_5_vl_tiny/tied",
        LoraConfig(
            r=2,
            lora_alpha=4,
            target_modules=r".*language_model.*\.(k_proj|up_proj)|.*visual.*\.(qkv|gate_proj|down_proj)",
        ),
    ),
}


def main() -> None:
    """Make the files, or check a folder."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--adapters", nargs="+", choices=ADAPTERS, default=list(ADAPTERS))
    parser.add_argument("--check", nargs=3, metavar=("FOLDER", "MODEL", "NPZ"))
    arguments = parser.parse_args()
    if arguments.check:
        check(*arguments.check)
        return
    for name in arguments.adapters:
        make(name, *ADAPTERS[name])


def make(name: str, model_name: str, config: LoraConfig) -> None:
    """Write one adapter's folder."""
    torch.manual_seed(len(name))
    model = get_peft_model(base(model_name), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.peft_config["default"].base_model_name_or_path = f"tests/fixtures/{model_name}"
    model.save_pretrained(ROOT / name)
    (ROOT / name / "README.md").unlink(missing_ok=True)
    (ROOT / name / "adapter_model.safetensors").chmod(0o644)
    np.savez_compressed(ROOT / name / "logits.npz", **logits(model, model_name))


def logits(model: PeftModel, model_name: str) -> dict[str, np.ndarray]:
    """What the model computes, by batch."""
    with np.load(FIXTURES / model_name / "reference.npz") as stored:
        arrays = dict(stored)
    adapted = model.eval().get_base_model()
    return {batch: numbers.run(adapted, inputs_of(arrays, batch))["logits"] for batch in BATCHES}


def base(model_name: str) -> numbers.Model:
    """The model that an adapter is for."""
    model_class = FAMILIES[model_name.split("/")[0]].model_class
    return model_class.from_pretrained(FIXTURES / model_name, attn_implementation="eager")


def check(folder: str, model_name: str, expected: str) -> None:
    """Compare what PEFT computes with the adapter in `folder` with stored logits.

    Raises:
        SystemExit: they differ.
    """
    found = logits(PeftModel.from_pretrained(base(model_name), folder), model_name)
    with np.load(expected) as stored:
        for batch, values in found.items():
            is_token = stored[batch] != 0  # ours are 0 on padding
            difference = np.abs(values - stored[batch])[is_token].max()
            print(f"{batch}: logits differ by {difference:.1e}")
            if difference > TOLERANCE:
                raise SystemExit(f"{folder}: the logits of {batch} differ by {difference}.")


if __name__ == "__main__":
    main()
