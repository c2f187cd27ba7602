"""What one version of PEFT and transformers writes, and what it reads; run by make_adapter_versions.py.

    python peft_side.py write BASES FOLDER KIND ...     # an adapter a kind, and reference.npz beside it
    python peft_side.py read BASES FOLDER ...           # a line a folder: how far its logits are, or the error

`reference.npz` holds the logits of the adapted model, and what `merge_and_unload` makes of each weight that it changes.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
import transformers
from kinds import KINDS, Kind
from peft import LoraConfig, PeftModel, get_peft_model

IDS = [5, 6, 30, 32, 31, 7, 3, 9]
IMAGE_TOKEN, GRID = 32, [1, 2, 2]


def main() -> None:
    """Write adapters, or read them."""
    torch.set_num_threads(1)
    command, bases, folder, *others = sys.argv[1:]
    if command == "write":
        for name in others:
            write(Path(bases), Path(folder) / name, KINDS[name])
        return
    for one in (folder, *others):
        print(json.dumps([one, told(Path(bases), Path(one))]))


def write(bases: Path, folder: Path, kind: Kind) -> None:
    """Write one adapter and what it computes; says why where this version cannot."""
    torch.manual_seed(len(folder.name))
    try:
        model = get_peft_model(base(bases / kind.base, kind.rows), LoraConfig(r=2, lora_alpha=5, **kind.settings))
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        print(f"{folder.name}: {type(error).__name__}: {error}"[:200])
        return
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.peft_config["default"].base_model_name_or_path = kind.base
    model.eval().save_pretrained(folder, save_embedding_layers=True if kind.rows else "auto")
    (folder / "README.md").unlink(missing_ok=True)
    (folder / "adapter_model.safetensors").chmod(0o644)
    if kind.rows is not None:  # as a trainer saves the tokenizer beside it
        (folder / "added_tokens.json").write_text(json.dumps({f"<new{row}>": row for row in range(40, kind.rows)}))
    numbers = {"logits": logits(model.get_base_model())}
    # Before merging: a tied head, whose embedding has an adapter, keeps the base's numbers.
    numbers |= {f"merged/{name}": value for name, value in merged(model, bases / kind.base, kind).items()}
    np.savez_compressed(folder / "reference.npz", **numbers)


def merged(model: PeftModel, folder: Path, kind: Kind) -> dict[str, np.ndarray]:
    """What merging makes of the weights that it changes."""
    if not kind.is_computed:
        return {}
    before = base(folder, kind.rows).state_dict()
    after = model.merge_and_unload().state_dict()
    return {name: after[name].numpy() for name in after if not torch.equal(after[name], before[name])}


def told(bases: Path, folder: Path) -> dict[str, object]:
    """How far the logits of the adapter in `folder` are from those in its reference.npz, or the error."""
    named = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    wanted = np.load(folder / "reference.npz")["logits"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = PeftModel.from_pretrained(base(bases / named, None), folder).eval()
        except Exception as error:  # whatever it says is the result
            return {"error": f"{type(error).__name__}: {error}"[:120]}
    missing = any("missing adapter keys" in str(one.message) for one in caught)
    return {"difference": float(np.abs(logits(model.get_base_model()) - wanted).max()), "warned": missing}


def base(folder: Path, rows: int | None) -> transformers.PreTrainedModel:
    """The model that an adapter is for."""
    is_later = "2_5" in folder.name
    model_class = getattr(transformers, f"Qwen2{'_5_' if is_later else ''}VLForConditionalGeneration")
    model = model_class.from_pretrained(folder, attn_implementation="eager").eval()
    if rows is not None:
        torch.manual_seed(0)
        model.resize_token_embeddings(rows)
    return model


def logits(model: transformers.PreTrainedModel) -> np.ndarray:
    """What the model computes for some words and an image."""
    ids = torch.tensor([IDS])
    pixels = np.random.default_rng(0).normal(size=(4, 96)).astype("float32")
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.from_numpy(pixels)}
    if transformers.__version__.startswith("5"):
        inputs["mm_token_type_ids"] = (ids == IMAGE_TOKEN).int()
    with torch.no_grad():
        return model(**inputs, image_grid_thw=torch.tensor([GRID])).logits.numpy()


if __name__ == "__main__":
    main()
