from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest

from paddlemix.models.qwen2_vl import Qwen2VLForConditionalGeneration
from paddlemix.models.qwen_vl import QWenLMHeadModel

FIXTURES = Path(__file__).parents[1] / "fixtures"
BASES, ADAPTERS = FIXTURES / "qwen2_vl_tiny", FIXTURES / "peft_adapter"
INPUTS = ["input_ids", "attention_mask", "pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw"]


@pytest.fixture
def tied() -> Qwen2VLForConditionalGeneration:
    return Qwen2VLForConditionalGeneration.from_pretrained(BASES / "tied")


@pytest.fixture
def qwen_vl(tiny_qwen_vl) -> QWenLMHeadModel:
    return QWenLMHeadModel.from_pretrained(tiny_qwen_vl)


@pytest.fixture(scope="session")
def logits_of():
    """A function that gives a model's logits for a batch of a Qwen2-VL fixture, 0 on padding."""

    def run(model, variant: str, batch: str) -> np.ndarray:
        with np.load(BASES / variant / "reference.npz") as stored:
            arrays = {name: stored[f"{batch}/{name}"] for name in INPUTS if f"{batch}/{name}" in stored}
        with paddle.no_grad():
            logits = model(**{name: paddle.to_tensor(array) for name, array in arrays.items()}).logits.numpy()
        return logits * (arrays["attention_mask"] == 1)[..., None]

    return run


@pytest.fixture(scope="session")
def scramble():
    """A function that gives all that is trained other values, so that an adapter changes what the model computes."""

    def run(model, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        for parameter in model.parameters():
            if not parameter.stop_gradient:
                noise = rng.normal(size=parameter.shape).astype("float32") * 0.1
                parameter.set_value(parameter + paddle.to_tensor(noise))

    return run
