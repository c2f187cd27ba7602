"""What PEFT makes of a tied embedding that is trained whole; run by Python with torch, transformers and peft.

    python tied_head_reference.py MODEL OUTPUT

writes the gradient of embedding and head, trained as one weight, as OUTPUT/gradient.npy, and adapters after a step, in
which they were trained apart: OUTPUT/embedding, OUTPUT/head and OUTPUT/both; and OUTPUT/tied, in which they were not.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen2VLForConditionalGeneration

IDS = [[5, 6, 7, 8, 9]]
CASES = {"embedding": ["embed_tokens"], "head": ["lm_head"], "both": ["embed_tokens", "lm_head"]}


def train(model_path: str, folder: Path, modules: list[str], *, tied: bool) -> np.ndarray:
    """Take a step, save the adapter, and return the embedding's gradient."""
    model = Qwen2VLForConditionalGeneration.from_pretrained(model_path, dtype=torch.float32)
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=modules, ensure_weight_tying=tied)
    adapted = get_peft_model(model, config)
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    ids = torch.tensor(IDS)
    adapted(input_ids=ids, labels=ids).loss.backward()
    gradient = adapted.get_input_embeddings().weight.grad
    optimizer.step()
    adapted.save_pretrained(folder)
    return None if gradient is None else gradient.numpy()


def main() -> None:
    """Write all."""
    model_path, output = sys.argv[1], Path(sys.argv[2])
    for name, modules in CASES.items():
        train(model_path, output / name, modules, tied=False)
    np.save(output / "gradient.npy", train(model_path, output / "tied", CASES["both"], tied=True))


if __name__ == "__main__":
    main()
