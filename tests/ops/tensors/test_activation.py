from __future__ import annotations

import numpy as np
import paddle
import pytest
from scipy.special import erf, erfc

from paddlemix.ops import gelu, quick_gelu, swiglu
from paddlemix.ops.tensors.activation import gelu_reference, quick_gelu_reference, swiglu_reference


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


@pytest.mark.parametrize("shape", [(5,), (3, 7), (2, 3, 5)])
def test_gelu_is_x_times_the_normal_distribution(assert_matches, rng, shape):
    x = 3 * rng.standard_normal(shape)
    assert_matches(gelu, lambda x: x * (1 + erf(x / np.sqrt(2))) / 2, x)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40_000])
def test_built_activations_agree_with_the_references(assert_agree, rng, count):
    x, y = 3 * rng.standard_normal(count), rng.standard_normal(count)
    assert_agree(swiglu, swiglu_reference, x, y)
    assert_agree(gelu, gelu_reference, x)
    assert_agree(quick_gelu, quick_gelu_reference, x)


@pytest.mark.parametrize("activation", [gelu, quick_gelu, lambda x: swiglu(x, paddle.ones_like(x))])
def test_far_from_zero_they_are_x_or_nothing(only_built, activation):
    x = paddle.to_tensor([1e4, -1e4, 100.0, -100.0, 1e10, 0.0], stop_gradient=False)
    y = activation(x)
    y.sum().backward()
    np.testing.assert_allclose(y.numpy(), [1e4, 0, 100, 0, 1e10, 0], rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(x.grad.numpy(), [1, 0, 1, 0, 1, 0.5], atol=1e-6)


def test_built_gelu_is_right_where_it_is_little(only_built):
    x = np.linspace(-6, 6, 48_001, dtype=np.float32)
    wanted = x.astype(np.float64) * erfc(-x.astype(np.float64) / np.sqrt(2)) / 2
    # Measured: 1.24e-6 of the value, most of it from rounding x^2 at -6; 0.4e-6 where x is above -2.
    np.testing.assert_allclose(gelu(paddle.to_tensor(x)).numpy(), wanted, rtol=2.5e-6)


def test_swiglu_of_two_shapes_is_refused():
    with pytest.raises(ValueError, match="`up` has shape"):
        swiglu(paddle.ones([2, 3]), paddle.ones([3, 2]))


@pytest.mark.parametrize("narrow", ["bfloat16", "float16"])
def test_under_autocast_a_gate_and_a_factor_of_two_dtypes_meet_in_float32(monkeypatch, rng, narrow):
    monkeypatch.setattr(paddle, "is_autocast_enabled", lambda: True)
    gate, up = (paddle.to_tensor(rng.standard_normal((3, 7)).astype(np.float32)) for _ in range(2))
    rounded = up.astype(narrow)
    found, wanted = swiglu(gate, rounded), swiglu(gate, rounded.astype("float32"))
    assert found.dtype == paddle.float32 and (found.numpy() == wanted.numpy()).all()
