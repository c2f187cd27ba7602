"""Weights that are rounded to codes: no number is further off than half a step."""

from __future__ import annotations

import numpy as np
import pytest

from paddlemix.quantization.nf4 import LEVELS
from paddlemix.quantization.rounding import KINDS, rounded, rounded_bytes

SHAPES = [(48, 256), (96, 32), (6, 5), (3, 7), (1, 1)]


@pytest.fixture(params=SHAPES, ids=str)
def weight(request: pytest.FixtureRequest) -> np.ndarray:
    return np.random.default_rng(0).normal(size=request.param).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_off_by_half_a_step_at_most(weight, kind):
    blocks = rounded(weight, kind)
    numbers = blocks.numbers(slice(None))
    scales = blocks.scales[np.arange(weight.size) // blocks.block].reshape(weight.shape)
    # Half of the widest gap of levels, in which zeros are rounded to one of 16 too.
    step = float(np.diff(LEVELS).max()) / 2 if kind == "nf4" else 1.0 if kind == "int4" else 0.5
    assert numbers.shape == weight.shape and (np.abs(numbers - weight) <= step * scales + 1e-6).all()
    assert blocks.bits == (8 if kind == "int8" else 4)


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_stay_zeros(kind):
    numbers = rounded(np.zeros([4, 256], np.float32), kind).numbers(slice(None))
    assert (numbers == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_takes_a_quarter_or_an_eighth(kind):
    weight = np.ones([64, 1024], np.float32)
    assert 4 / (weight.nbytes / rounded(weight, kind).bytes) < (1.2 if kind == "int8" else 0.6)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_known_before(weight, kind):
    assert rounded_bytes(*weight.shape, kind) == rounded(weight, kind).bytes


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_without_a_code_are_refused(kind):
    with pytest.raises(ValueError, match="holds NaN or infinite numbers"):
        rounded(np.array([[1.0, np.nan]], np.float32), kind)
