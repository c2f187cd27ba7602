from __future__ import annotations

import numpy as np
import paddle
import pytest

from paddlemix.ops import rms_norm


def slow_rms_norm(x, weight, epsilon):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * weight


@pytest.mark.parametrize("shape", [(1, 3), (5, 7), (2, 3, 5)])
@pytest.mark.parametrize("epsilon", [1e-6, 0.5])
def test_rows_are_scaled_to_unit_root_mean_square_then_by_the_weight(assert_matches, rng, shape, epsilon):
    x, weight = 2 * rng.standard_normal(shape) + 1, rng.standard_normal(shape[-1])
    assert_matches(lambda *a: rms_norm(*a, epsilon), lambda *a: slow_rms_norm(*a, epsilon), x, weight)


def test_a_row_of_zeros_stays_zero():
    found = rms_norm(paddle.zeros([2, 4]), paddle.ones([4]), 1e-6)
    assert (found.numpy() == 0).all()


def test_half_precision_is_normalised_in_float32():
    # Ones summed in bfloat16 stop at 256.
    found = rms_norm(paddle.ones([1, 1000], dtype="bfloat16"), paddle.ones([1000], dtype="bfloat16"), 1e-6)
    assert found.dtype == paddle.bfloat16
    assert (found.astype("float32").numpy() == 1).all()
