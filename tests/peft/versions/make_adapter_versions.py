"""Make tests/fixtures/adapters: adapters that each version of PEFT and transformers writes, and who reads them.

Runs in this project's environment and asks another one, which has torch, for each version. The versions lie in folders
of their own, filled by `pip install --no-deps --target FOLDER transformers==... peft==... tokenizers==...`:

    python tests/peft/versions/make_adapter_versions.py PYTHON 4.45=FOLDER 4.57=FOLDER 5.24=FOLDER

The first version is the oldest, the last the newest. Writes the tiny bases, a folder a version with a folder a kind of
adapter, `ours`, and `matrix.json`: by reader and writer, the kinds that come out otherwise than they were written.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
from kinds import KINDS, NAMED, OLDEST_TOO

from paddlemix.auto import AutoModelMIX
from paddlemix.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration, Qwen25VLConfig
from paddlemix.models.qwen2_vl import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from paddlemix.peft.adapter_config import AdapterConfig
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.peft.renaming import rename_adapter

ROOT = Path(__file__).parents[2] / "fixtures" / "adapters"
SIDE = Path(__file__).with_name("peft_side.py")
TOLERANCE = 2e-5
IDS, GRID = [5, 6, 30, 32, 31, 7, 3, 9], [1, 2, 2]
SHARED = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 128, "image_token_id": 32, "video_token_id": 33,
    "vision_start_token_id": 30, "vision_end_token_id": 31,
    "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
}  # fmt: skip
TOWER = {"depth": 1, "num_heads": 1, "patch_size": 4}
QWEN2 = {**TOWER, "embed_dim": 8, "mlp_ratio": 2, "hidden_size": 16}
QWEN2_5 = {**TOWER, "hidden_size": 8, "intermediate_size": 12, "out_hidden_size": 16, "window_size": 16}
BASES = {
    "qwen2_vl_tied": (Qwen2VLForConditionalGeneration, Qwen2VLConfig, QWEN2, True),
    "qwen2_vl_untied": (Qwen2VLForConditionalGeneration, Qwen2VLConfig, QWEN2, False),
    "qwen2_5_vl_tied": (
        Qwen2_5_VLForConditionalGeneration,
        Qwen25VLConfig,
        {**QWEN2_5, "fullatt_block_indexes": [0]},
        True,
    ),
}
# What ours are put on: layers of both parts, and weights that are saved whole.
LAYERS = ["model.layers.0.self_attn.q_proj", "visual.blocks.0.attn.qkv"]
MERGER = ("visual.merger.mlp.0.weight", "visual.merger.mlp.0.bias")
OURS = {
    "layers": ("qwen2_vl_untied", ()),
    "layers_2_5": ("qwen2_5_vl_tied", ()),
    "whole": ("qwen2_vl_untied", ("model.embed_tokens.weight", "lm_head.weight", *MERGER)),
    "tied_both": ("qwen2_vl_tied", ("model.embed_tokens.weight",)),
}


def main() -> None:
    """Write everything."""
    python, *versions = sys.argv[1:]
    folders = dict(one.split("=") for one in versions)
    shutil.rmtree(ROOT, ignore_errors=True)
    make_bases(ROOT / "bases")
    oldest, *_, newest = folders
    for version, folder in folders.items():
        more = {oldest: OLDEST_TOO, newest: [name for name in KINDS if name not in NAMED]}.get(version, ())
        print(version, ask(python, folder, "write", ROOT / "bases", ROOT / version, *NAMED, *more))
    make_ours()
    writers = [*folders, "ours", "ours_before_4.52"]
    asked = {writer: sorted(path for path in (ROOT / writer).iterdir() if path.name in NAMED) for writer in writers}
    matrix = {reader: read_by(python, folder, asked) for reader, folder in folders.items()}
    (ROOT / "matrix.json").write_text(json.dumps(matrix, indent=1) + "\n")


def ask(python: str, folder: str, *words: object) -> str:
    """Run the other side with one version."""
    environment = {**os.environ, "PYTHONPATH": folder, "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(
        [python, SIDE, *map(str, words)], env=environment, check=True, text=True, stdout=-1, stderr=-3
    )
    return ended.stdout


def read_by(python: str, folder: str, asked: dict[str, list[Path]]) -> dict[str, dict[str, str]]:
    """By writer, the kinds that one version reads otherwise than they were written, and how."""
    lines = ask(python, folder, "read", ROOT / "bases", *(path for paths in asked.values() for path in paths))
    told = dict(json.loads(line) for line in lines.splitlines() if line.startswith("["))
    return {
        writer: {path.name: words for path in paths if (words := verdict(told[str(path)])) is not None}
        for writer, paths in asked.items()
    }


def verdict(told: dict[str, object]) -> str | None:
    """Say what went wrong; None where nothing did."""
    if "error" in told:
        return str(told["error"])
    return None if told["difference"] < TOLERANCE else f"other logits, {'warned' if told['warned'] else 'silent'}"


def make_bases(root: Path) -> None:
    """Write the tiny models."""
    for name, (model_class, config_class, tower, is_tied) in BASES.items():
        model = model_class(config_class(**SHARED, tie_word_embeddings=is_tied, vision_config=dict(tower)))
        rng = np.random.default_rng(0)
        for parameter_name, parameter in model.named_parameters():
            centre = 1 if "norm" in parameter_name or "ln_q" in parameter_name else 0
            numbers = rng.normal(size=parameter.shape) * 0.3 + centre
            parameter.set_value(paddle.to_tensor(numbers.astype("float32")))
        model.save_pretrained(root / name)


def make_ours() -> None:
    """Write what this project writes, and the same for older versions of transformers."""
    for name, (base, whole) in OURS.items():
        model = AutoModelMIX.from_pretrained(ROOT / "bases" / base)
        layout = model.weight_layout(model.config)
        adapted = MixLoRAModel.adapting(model, AdapterConfig(2, 5, base=base), LAYERS, whole)
        rng = np.random.default_rng(1)
        for parameter in adapted.parameters():
            if not parameter.stop_gradient:
                noise = rng.normal(size=parameter.shape).astype("float32") * 0.2
                parameter.set_value(parameter + paddle.to_tensor(noise))
        adapted.eval()
        folder = ROOT / "ours" / name
        adapted.save_pretrained(folder)
        np.savez_compressed(folder / "reference.npz", logits=logits(adapted))
        older = ROOT / "ours_before_4.52" / name
        older.mkdir(parents=True)
        rename_adapter(folder, older, layout, in_memory=False)


def logits(model: MixLoRAModel) -> np.ndarray:
    """What the model computes for the words and the image of peft_side.py."""
    pixels = np.random.default_rng(0).normal(size=(4, 96)).astype("float32")
    with paddle.no_grad():
        return model(
            input_ids=paddle.to_tensor([IDS]),
            pixel_values=paddle.to_tensor(pixels),
            image_grid_thw=paddle.to_tensor([GRID]),
        ).logits.numpy()


if __name__ == "__main__":
    main()
