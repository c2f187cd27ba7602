from __future__ import annotations

import numpy as np
import paddle
import pytest

from paddlemix.datasets.half import rounded


@pytest.fixture(scope="module")
def numbers():
    """Every exponent and sign with many fractions: ties, subnormals, infinities and NaN are among them."""
    bits = np.arange(0, 2**32, 40_009, dtype=np.uint64)
    ties = (np.arange(2**16, dtype=np.uint64) << 16)[:, None] + np.array([0, 0x7FFF, 0x8000, 0x8001])
    return np.concatenate([bits, ties.ravel()]).astype(np.uint32).view(np.float32).reshape(3, -1)


def test_bfloat16_is_what_paddle_casts_to_bit_by_bit(numbers):
    wanted = paddle.to_tensor(numbers).astype("bfloat16").numpy()
    found = rounded(numbers, "bfloat16")
    assert found.dtype == wanted.dtype == np.uint16 and found.shape == numbers.shape
    assert np.isnan(numbers).any() and np.isinf(numbers).any()
    np.testing.assert_array_equal(found, wanted)
    assert paddle.to_tensor(found).dtype == paddle.bfloat16


def test_float16_is_what_paddle_casts_to_bit_by_bit(numbers):
    # Paddle's CPU rounds some below 1e-20 away from zero.
    numbers = numbers[(np.abs(numbers) > 1e-20) & ~np.isnan(numbers)]
    wanted = paddle.to_tensor(numbers).astype("float16").numpy()
    found = rounded(numbers, "float16")
    assert found.dtype == np.float16 and np.isinf(found).any()
    np.testing.assert_array_equal(found.view(np.uint16), wanted.view(np.uint16))


def test_float32_stays_as_it_is(numbers):
    assert rounded(numbers, "float32") is numbers
