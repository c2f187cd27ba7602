from __future__ import annotations

import numpy as np
import pytest

from paddlemix.ops import quick_gelu, swiglu


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("shape", [(1, 5), (3, 7), (2, 3, 5)])
def test_swiglu_is_the_gate_times_its_sigmoid_times_up(assert_matches, rng, shape):
    gate, up = 3 * rng.standard_normal(shape), rng.standard_normal(shape)
    assert_matches(swiglu, lambda gate, up: gate * sigmoid(gate) * up, gate, up)


@pytest.mark.parametrize("shape", [(5,), (3, 7), (2, 3, 5)])
def test_quick_gelu_is_x_times_the_sigmoid_of_1_702_x(assert_matches, rng, shape):
    x = 3 * rng.standard_normal(shape)
    assert_matches(quick_gelu, lambda x: x * sigmoid(1.702 * x), x)
