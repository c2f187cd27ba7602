"""Quantised checkpoints that are read by transformers, in an environment that has GPTQModel."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import paddle
import pytest

from paddlemix.auto import AutoModelMIX
from paddlemix.calibration.base import Base
from paddlemix.models.quantized import quantized_layers
from paddlemix.models.registry import find_family
from paddlemix.quantization.blocks import Blocks
from paddlemix.quantization.calibrated.columns import ColumnRounding
from paddlemix.quantization.calibrated.recipe import Recipe

from ..references import FIXTURES, Reference

SCRIPT = Path(__file__).with_name("load_in_transformers.py")
# The Python, and the folders with transformers 5, optimum and GPTQModel, where it has them not itself.
PYTHON, FOLDERS = "QUANTIZED_READER_PYTHON", "QUANTIZED_READER_PYTHONPATH"
RECIPES = {
    "gptq": Recipe(group=32),
    "gptq by use, asymmetric": Recipe(group=32, symmetric=False, orders_by_use=True),
    "gptq int8": Recipe(bits=8, group=32),
    "awq": Recipe("awq", 4, 32, symmetric=False),
}
# Of the largest: their layers round what codes stand for to half precision.
TOLERANCE = 5e-3


def base_of(family: str, folder: Path) -> Path:
    """Make a checkpoint whose layers are as wide as GPTQModel's must be."""
    source = FIXTURES / family / "untied"
    values = json.loads((source / "config.json").read_text("utf-8"))
    widths = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    tower = {"out_hidden_size" if family == "qwen2_5_vl_tiny" else "hidden_size": 64}
    values["text_config"] |= widths
    values |= {"vision_config": {**values["vision_config"], **tower}}
    made = find_family(source)
    paddle.seed(0)
    model = made.model_class(made.config_class(**values))
    for parameter in model.parameters():
        parameter.set_value(parameter + 0.05 * paddle.randn(parameter.shape))
    model.save_pretrained(folder)
    return folder


def quantised(folder: Path, target: Path, recipe: Recipe) -> Path:
    """Quantise a checkpoint for inputs of many sizes."""
    base, rng = Base.of(folder, recipe), np.random.default_rng(0)
    weights = {name: layer.weight.numpy().T for name, layer in AutoModelMIX.from_pretrained(folder).named_sublayers()
               if name in base.layers}  # fmt: skip

    def blocks(weight: np.ndarray) -> Blocks:
        inputs = rng.normal(size=(200, weight.shape[1])) * np.exp(rng.normal(size=weight.shape[1]))
        return ColumnRounding(inputs.T @ inputs, recipe).blocks(weight)

    target.mkdir()
    base.write(target, {name: base.parts(name, blocks(weight)) for name, weight in weights.items()}, None)
    return target


@pytest.mark.skipif(PYTHON not in os.environ, reason=f"{PYTHON} names no Python with transformers and GPTQModel")
@pytest.mark.parametrize("family", ["qwen2_vl_tiny", "qwen2_5_vl_tiny"])
def test_transformers_computes_the_same_logits(family, tmp_path):
    base = base_of(family, tmp_path / "base")
    folders = {name: quantised(base, tmp_path / name, recipe) for name, recipe in RECIPES.items()}
    reference = Reference.read(FIXTURES / family / "untied")
    inputs = reference.inputs("mixed_right")
    assert "pixel_values" in inputs
    del inputs["labels"]
    # Releases differ in how they count positions.
    inputs["position_ids"] = paddle.to_tensor(reference.arrays["mixed_right/position_ids"])
    np.savez(tmp_path / "inputs.npz", **{name: tensor.numpy() for name, tensor in inputs.items()})
    for name, folder in folders.items():
        # A kernel that is compiled for each machine computes the same; torch's needs no compiler.
        values = json.loads((folder / "config.json").read_text("utf-8"))
        values["quantization_config"]["backend"] = "torch_awq" if name == "awq" else "torch"
        (folder / "config.json").write_text(json.dumps(values), "utf-8")
    environment = {**os.environ, "PYTHONPATH": os.environ.get(FOLDERS, "")}
    command = [os.environ[PYTHON], SCRIPT, tmp_path / "inputs.npz", *folders.values()]
    done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]

    is_token, plain = reference.is_token("mixed_right"), AutoModelMIX.from_pretrained(base)
    for name, folder in folders.items():
        model = AutoModelMIX.from_pretrained(folder)
        with paddle.no_grad():
            found, before = (one(**inputs).logits.numpy()[is_token] for one in (model, plain))
        with np.load(folder / "logits.npz") as stored:
            theirs, quantized = stored["logits"][is_token], set(stored["quantized"].tolist())
        off = np.abs(theirs - found).max()
        assert off < TOLERANCE * np.abs(found).max(), name
        assert off < 0.3 * np.abs(theirs - before).max(), name
        layout = model.weight_layout(model.config)
        assert quantized == {layout.name_in_memory(one) for one in quantized_layers(model)}, name
