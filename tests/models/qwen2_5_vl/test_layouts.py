"""The layouts in which checkpoints of Qwen2.5-VL are published and saved again."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file, save_file

from paddlemix.auto import AutoModelMIX
from paddlemix.files import write_json
from paddlemix.models.config_file import read_config
from paddlemix.models.qwen2_5_vl import Qwen25VLConfig

from ...references import references_of

pytestmark = references_of("qwen2_5_vl_tiny")
ARCHITECTURES = ["Qwen2_5_VLForConditionalGeneration"]


def flat(nested: dict[str, Any]) -> dict[str, Any]:
    """As published: the language model's keys at the top."""
    text = {key: one for key, one in nested["text_config"].items() if key not in ("model_type", "layer_types")}
    vision = {key: one for key, one in nested["vision_config"].items() if key not in ("model_type", "in_channels")}
    return {
        **{key: one for key, one in nested.items() if key not in ("text_config", "dtype")},
        **text,
        "architectures": ARCHITECTURES,
        "torch_dtype": "float32",
        "rope_scaling": {"type": "mrope", "mrope_section": text["rope_scaling"]["mrope_section"]},
        "vision_config": {**vision, "in_chans": 3, "spatial_patch_size": vision["patch_size"]},
    }


def with_rope_parameters(nested: dict[str, Any]) -> dict[str, Any]:
    """As transformers 5 writes it: theta stands among the parameters of positions."""
    text = dict(nested["text_config"])
    sections, theta = text.pop("rope_scaling")["mrope_section"], text.pop("rope_theta")
    parameters = {"mrope_section": sections, "rope_theta": theta, "rope_type": "default", "type": "default"}
    return {
        **nested,
        "architectures": ARCHITECTURES,
        "text_config": {**text, "dtype": "float32", "rope_parameters": parameters},
        "transformers_version": "5.24.0",
    }


def later_name(name: str) -> str:
    """What transformers >= 4.52 calls the tensor `name`."""
    if name.startswith("visual."):
        return f"model.{name}"
    return name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name


LAYOUTS = {
    "published": (flat, str),
    "transformers 4.52": (dict, later_name),
    "transformers 5": (with_rope_parameters, later_name),
}


@pytest.fixture(params=LAYOUTS)
def folder(request, reference, tmp_path):
    """The reference's model in one of the layouts."""
    config, name_of = LAYOUTS[request.param]
    nested = read_config(reference.folder)
    assert "architectures" not in nested and nested["text_config"]["architectures"] == ARCHITECTURES
    made = tmp_path / "made"
    made.mkdir()
    write_json(made / "config.json", config(nested))
    tensors = load_file(reference.folder / "model.safetensors")
    save_file({name_of(name): array for name, array in tensors.items()}, made / "model.safetensors")
    return made


def test_every_layout_is_read_as_the_same_model_and_written_as_published(folder, reference, model, tmp_path):
    inputs = reference.inputs("mixed_left")
    read = AutoModelMIX.from_pretrained(folder)
    assert read.config.mrope_section == model.config.mrope_section
    assert read.config.to_published() == model.config.to_published()
    read.save_pretrained(tmp_path / "saved")
    again = AutoModelMIX.from_pretrained(tmp_path / "saved")
    with paddle.no_grad():
        wanted, *found = (one(**inputs).logits.numpy() for one in (model, read, again))
    assert all(np.array_equal(logits, wanted) for logits in found)

    written = json.loads((tmp_path / "saved" / "config.json").read_text("utf-8"))
    published = flat(read_config(reference.folder))
    shared = written.keys() & published.keys() - {"vision_config", "rope_scaling"}
    assert len(shared) > 15 and {key: written[key] for key in shared} == {key: published[key] for key in shared}
    vision = written["vision_config"].keys() & published["vision_config"].keys()
    assert len(vision) > 10 and all(written["vision_config"][key] == published["vision_config"][key] for key in vision)
    stored, tensors = (load_file(one / "model.safetensors") for one in (reference.folder, tmp_path / "saved"))
    assert stored.keys() == tensors.keys() and all(np.array_equal(tensors[name], stored[name]) for name in stored)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_decides_windows_and_seconds_is_read_from_every_layout(reference, layout):
    nested = read_config(reference.folder)
    vision = Qwen25VLConfig(**LAYOUTS[layout][0](nested)).vision_config
    for name in ("window_size", "tokens_per_second", "hidden_size", "out_hidden_size", "intermediate_size"):
        assert getattr(vision, name) == nested["vision_config"][name]
    assert list(vision.fullatt_block_indexes) == nested["vision_config"]["fullatt_block_indexes"]
