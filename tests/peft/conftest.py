from __future__ import annotations

import numpy as np
import paddle
import pytest

from paddlemix.models.qwen2_vl import Qwen2VLForConditionalGeneration
from paddlemix.models.qwen_vl import QWenLMHeadModel

from ..references import FIXTURES, Reference, base_of


@pytest.fixture
def tied() -> Qwen2VLForConditionalGeneration:
    return Qwen2VLForConditionalGeneration.from_pretrained(FIXTURES / "qwen2_vl_tiny" / "tied")


@pytest.fixture
def qwen_vl(tiny_qwen_vl) -> QWenLMHeadModel:
    return QWenLMHeadModel.from_pretrained(tiny_qwen_vl)


@pytest.fixture(scope="session")
def logits_of():
    """A function that gives logits for a batch of the model that an adapter of PEFT's is for, 0 on padding."""

    def run(model, adapter: str, batch: str) -> np.ndarray:
        reference = Reference.read(base_of(adapter))
        with paddle.no_grad():
            logits = model(**reference.inputs(batch)).logits.numpy()
        return logits * reference.is_token(batch)[..., None]

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
