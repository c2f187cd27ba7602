"""Weights that are rounded to codes: no number is further off than half a step."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from paddlemix.quantization.nf4 import LEVELS
from paddlemix.quantization.rounding import KINDS, rounded, rounded_by_rows, rounded_bytes

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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1100, 2000), (3000, 700)], ids=str)
def test_parts_of_a_weight_are_rounded_as_the_whole_of_it(kind, shape, monkeypatch):
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    asked: list[int] = []

    def read(rows: slice) -> np.ndarray:
        asked.append(len(weight[rows]))
        return weight[rows]

    found = rounded_by_rows(shape, read, kind)
    assert len(asked) > 1 and sum(asked) == shape[0]
    monkeypatch.setattr("paddlemix.quantization.rounding._AT_ONCE", weight.size)
    wanted = rounded(weight, kind)
    assert np.array_equal(found.codes, wanted.codes) and np.array_equal(found.scales, wanted.scales)
    assert np.array_equal(found.numbers(slice(None)), wanted.numbers(slice(None)))


@pytest.mark.parametrize("kind", KINDS)
def test_rounding_holds_a_part_of_the_weight_in_floating_point(kind):
    shape = (4096, 4096)
    tracemalloc.start()
    try:
        blocks = rounded_by_rows(shape, lambda rows: np.ones([rows.stop - rows.start, shape[1]], np.float32), kind)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The codes as parts and as one, and some MiB of a part; the weight itself would be 64 MiB.
    assert blocks.bytes < peak < 2 * blocks.bytes + (24 << 20) < 64 << 20
