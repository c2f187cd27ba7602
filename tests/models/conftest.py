from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
import pytest

from paddlemix.models.qwen2_vl import Qwen2VLForConditionalGeneration

FIXTURES = Path(__file__).parents[1] / "fixtures" / "qwen2_vl_tiny"
INPUTS = ["input_ids", "labels", "attention_mask"]
INPUTS += ["pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw"]


@dataclass(frozen=True)
class Reference:
    """A tiny model that the reference implementation saved, and what it computed; `make_reference.py` made both."""

    folder: Path
    arrays: dict[str, np.ndarray]

    @property
    def batches(self) -> list[str]:
        return [key.removesuffix("/loss") for key in self.arrays if key.endswith("/loss")]

    def inputs(self, batch: str) -> dict[str, paddle.Tensor]:
        found = {key: self.arrays.get(f"{batch}/{key}") for key in INPUTS}
        return {key: paddle.to_tensor(array) for key, array in found.items() if array is not None}

    @property
    def training(self) -> dict[str, np.ndarray]:
        with np.load(self.folder / "training.npz") as stored:
            return dict(stored)

    def is_token(self, batch: str) -> np.ndarray:
        return self.arrays[f"{batch}/attention_mask"] == 1


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder that `make_reference.py` writes."""
    return FIXTURES


@pytest.fixture(scope="session", params=["tied", "untied", "one_key_head"])
def reference(request) -> Reference:
    folder = FIXTURES / request.param
    with np.load(folder / "reference.npz") as stored:
        return Reference(folder, dict(stored))


@pytest.fixture(scope="session")
def model(reference) -> Qwen2VLForConditionalGeneration:
    """Shared: a test that changes it takes `fresh_model`."""
    return Qwen2VLForConditionalGeneration.from_pretrained(reference.folder)


@pytest.fixture
def fresh_model(reference) -> Qwen2VLForConditionalGeneration:
    return Qwen2VLForConditionalGeneration.from_pretrained(reference.folder)


@pytest.fixture(scope="session")
def as_published() -> Callable[[Qwen2VLForConditionalGeneration, str, paddle.Tensor], np.ndarray]:
    """Turns a parameter, or its gradient, into the shape that the parameter has on disk."""

    def turn(model, name, tensor):
        layout, array = model.weight_layout(model.config), tensor.numpy().copy()
        if name in layout.convolution_kernels:
            return array.T.reshape(-1, *layout.convolution_kernels[name])
        return array.T if layout.is_transposed(name, array.ndim) else array

    return turn
