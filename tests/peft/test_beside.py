"""Full weights that trainers write beside an adapter's own file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from paddlemix.auto import AutoModelMIX

from .test_versions import BASES, ROOT, logits_of, merged

BASE = BASES / "qwen2_vl_untied"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter beside nothing."""
    folder = shutil.copytree(ROOT / "5.24" / "layers", tmp_path / "adapter")
    # As ms-swift writes them: they say nothing of the weights.
    (folder / "additional_config.json").write_text(json.dumps({"lora_dtype": None, "lorap_lr_ratio": None}))
    (folder / "args.json").write_text(json.dumps({"tuner_type": "lora"}))
    return folder


def tower(change: float) -> dict[str, np.ndarray]:
    """The base's whole tower, other by `change`, as the adapted model names it."""
    weights = load_file(BASE / "model.safetensors")
    return {
        f"base_model.model.model.{name}": array + np.float32(change)
        for name, array in weights.items()
        if name.startswith("visual.") and "qkv.weight" not in name
    }


def test_a_tower_that_was_trained_whole_is_read_and_merged(adapter, tmp_path):
    alone = logits_of(AutoModelMIX.from_pretrained(BASE, lora_path=adapter))
    save_file(tower(0.0), adapter / "vit.safetensors")
    same = logits_of(AutoModelMIX.from_pretrained(BASE, lora_path=adapter))
    np.testing.assert_allclose(same, alone, atol=1e-6)
    save_file(tower(0.1), adapter / "vit.safetensors")
    other = logits_of(AutoModelMIX.from_pretrained(BASE, lora_path=adapter))
    assert np.abs(other - alone).max() > 0.01
    again = logits_of(AutoModelMIX.from_pretrained(merged(adapter, tmp_path / "merged")))
    np.testing.assert_allclose(again, other, atol=2e-5)


def test_a_tower_under_names_of_another_model_is_refused(adapter, tmp_path):
    save_file({"base_model.model.vision_tower.conv.weight": np.ones([2, 2], np.float32)}, adapter / "vit.safetensors")
    with pytest.raises(ValueError, match=r"vision_tower.conv.weight, which the (base|model) does not have"):
        merged(adapter, tmp_path / "merged")


@pytest.mark.parametrize("name", ["model.safetensors", "model-00001-of-00002.safetensors", "pytorch_model.bin"])
def test_a_whole_model_beside_an_adapter_is_refused_with_what_to_move(adapter, name):
    (adapter / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=rf"{name}: a whole model .* move adapter_config.json and adapter_model.* out"):
        AutoModelMIX.from_pretrained(BASE, lora_path=adapter)


@pytest.mark.parametrize("name", ["new_embeddings.safetensors", "projector.bin", "model.pt"])
def test_weights_of_unknown_meaning_are_refused_by_the_files_name(adapter, name):
    (adapter / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=rf"{name}: weights beside an adapter whose meaning is not known"):
        AutoModelMIX.from_pretrained(BASE, lora_path=adapter)


@pytest.mark.parametrize("name", ["optimizer.pt", "training_args.bin", "rng_state_0.pth", "scheduler.pt"])
def test_a_trainers_state_beside_an_adapter_changes_nothing(adapter, name):
    (adapter / name).write_bytes(b"x")
    AutoModelMIX.from_pretrained(BASE, lora_path=adapter)
