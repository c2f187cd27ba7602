"""Make the `.bin` files that the reader of PyTorch's files is tested on.

Needs torch 2.13.0 (CPU) and transformers 4.57.6, in an environment of its own; the tests need neither.

    python tests/weights/make_torch_files.py        # writes tests/fixtures/torch_files/
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

ROOT = Path(__file__).parents[1] / "fixtures" / "torch_files"
WIDTH = 8


def main() -> None:
    """Make the files."""
    ROOT.mkdir(parents=True, exist_ok=True)
    torch.save(tensors(), ROOT / "tensors.bin")
    torch.save(tensors(), ROOT / "legacy.bin", _use_new_zipfile_serialization=False)
    torch.save({"weight": counted(2, 3).T}, ROOT / "transposed.bin")
    torch.save({"weight": counted(2, 3, 2).transpose(0, 2)}, ROOT / "strided.bin")
    torch.save({"weight": counted(2, 3).long()}, ROOT / "integers.bin")
    torch.save({"model": tensors(), "epoch": 3}, ROOT / "training.bin")
    torch.save(torch.nn.Linear(2, 3), ROOT / "module.bin")
    save_model(ROOT / "model")


def tensors() -> dict[str, torch.Tensor | torch.nn.Parameter]:
    """Make one of each kind; element number n is n / 4, exact in each dtype."""
    return {
        "float64": counted(2, 3).double(),
        "float32": counted(3, 2, 2),
        "float16": counted(5).half(),
        "bfloat16": counted(120, 2).bfloat16(),
        "scalar": counted(1)[0],
        "rows_2_to_4": counted(6, 2)[2:4],
        "parameter": torch.nn.Parameter(counted(2, 2)),
        "single_column": counted(1, 4).T,
    }


def counted(*shape: int) -> torch.Tensor:
    """Count 0, 1/4, 2/4, ... in this shape."""
    return (torch.arange(torch.Size(shape).numel()) / 4).reshape(shape)


def save_model(folder: Path) -> None:
    """Save a model as `.bin` shards with an index, and the same as safetensors beside them."""
    text = {
        "hidden_size": WIDTH,
        "intermediate_size": 12,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "vocab_size": 24,
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
        "tie_word_embeddings": False,
    }
    vision = {"depth": 1, "embed_dim": WIDTH, "num_heads": 1, "mlp_ratio": 2, "patch_size": 2, "hidden_size": WIDTH}
    ids = {"image_token_id": 20, "video_token_id": 21, "vision_start_token_id": 22, "vision_end_token_id": 23}
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision, **ids)).bfloat16()
    model.save_pretrained(folder)
    model.save_pretrained(folder, safe_serialization=False, max_shard_size="6KB")
    (folder / "model.safetensors").chmod(0o644)
    (folder / "generation_config.json").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
