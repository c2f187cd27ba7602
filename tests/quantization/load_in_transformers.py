"""Loads quantised checkpoints by transformers, which computes with GPTQModel's layers, and stores their logits.

Run it by a Python that has torch, transformers 5, optimum and GPTQModel; none of them needs a GPU for it:

    python tests/quantization/load_in_transformers.py inputs.npz CHECKPOINT...

Each folder gets a `logits.npz` with `logits` float32[B, L, V], and `quantized`, the names of the layers that hold
codes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForImageTextToText


def main() -> None:
    """Load, compute, store."""
    with np.load(sys.argv[1]) as stored:
        tensors = {name: torch.from_numpy(array) for name, array in stored.items()}
    for folder in map(Path, sys.argv[2:]):
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, device_map="cpu")
        with torch.no_grad():
            logits = model(**tensors).logits
        quantized = [name for name, layer in model.named_modules() if hasattr(layer, "qweight")]
        np.savez(folder / "logits.npz", logits=logits.float().numpy(), quantized=quantized)


if __name__ == "__main__":
    main()
