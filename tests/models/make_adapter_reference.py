"""Make the PEFT adapters that ours are compared with: of the tiny models of make_reference.py, and their logits.

Needs torch 2.13.0 (CPU), transformers 4.57.6 and peft 0.21.2, in an environment of its own; the tests need none.

    python tests/models/make_adapter_reference.py                             # write tests/fixtures/peft_adapter/
    python tests/models/make_adapter_reference.py --check FOLDER tied NPZ     # PEFT computes NPZ's logits from FOLDER

Each variant's folder is what PEFT's `save_pretrained` writes; `logits.npz` beside it holds logits by the name of a
batch of that variant's reference.npz.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import reference_numbers as numbers
import torch
from make_reference import ROOT as MODELS
from peft import LoraConfig, PeftModel, get_peft_model
from reference_batches import inputs_of
from transformers import Qwen2VLForConditionalGeneration

ROOT = Path(__file__).parents[1] / "fixtures" / "peft_adapter"
BATCHES = ["mixed_left", "video"]
TOLERANCE = 5e-5
# Between them: a list of endings and a regular expression, both scales, the tower, layers that are saved whole.
VARIANTS = {
    "tied": LoraConfig(
        r=3,
        lora_alpha=8,
        use_rslora=True,
        lora_dropout=0.5,
        target_modules=r".*language_model.*\.(q_proj|v_proj|down_proj)|.*visual.*\.qkv",
    ),
    "untied": LoraConfig(
        r=2, lora_alpha=3, target_modules=["o_proj", "up_proj"], modules_to_save=["lm_head", "embed_tokens"]
    ),
}


def main() -> None:
    """Make the files, or check a folder."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", nargs=3, metavar=("FOLDER", "VARIANT", "NPZ"))
    arguments = parser.parse_args()
    if arguments.check:
        check(*arguments.check)
        return
    for variant, config in VARIANTS.items():
        make(variant, config)


def make(variant: str, config: LoraConfig) -> None:
    """Write one variant's folder."""
    model = get_peft_model(base(variant), config)
    torch.manual_seed(len(variant))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.peft_config["default"].base_model_name_or_path = f"tests/fixtures/qwen2_vl_tiny/{variant}"
    model.save_pretrained(ROOT / variant)
    (ROOT / variant / "README.md").unlink(missing_ok=True)
    (ROOT / variant / "adapter_model.safetensors").chmod(0o644)
    np.savez_compressed(ROOT / variant / "logits.npz", **logits(model, variant))


def logits(model: PeftModel, variant: str) -> dict[str, np.ndarray]:
    """What the model computes, by batch."""
    with np.load(MODELS / variant / "reference.npz") as stored:
        arrays = dict(stored)
    adapted = model.eval().get_base_model()
    return {batch: numbers.run(adapted, inputs_of(arrays, batch))["logits"] for batch in BATCHES}


def base(variant: str) -> Qwen2VLForConditionalGeneration:
    """The model that the adapters are for."""
    return Qwen2VLForConditionalGeneration.from_pretrained(MODELS / variant, attn_implementation="eager")


def check(folder: str, variant: str, expected: str) -> None:
    """Compare what PEFT computes with the adapter in `folder` with stored logits.

    Raises:
        SystemExit: they differ.
    """
    found = logits(PeftModel.from_pretrained(base(variant), folder), variant)
    with np.load(expected) as stored:
        for batch, values in found.items():
            is_token = stored[batch] != 0  # ours are 0 on padding
            difference = np.abs(values - stored[batch])[is_token].max()
            print(f"{batch}: logits differ by {difference:.1e}")
            if difference > TOLERANCE:
                raise SystemExit(f"{folder}: the logits of {batch} differ by {difference}.")


if __name__ == "__main__":
    main()
