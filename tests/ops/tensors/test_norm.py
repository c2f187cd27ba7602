from __future__ import annotations

import sys

import numpy as np
import paddle
import pytest

from paddlemix.ops import add_rms_norm, layer_norm, rms_norm
from paddlemix.ops.tensors.norm import (
    add_rms_norm_reference,
    layer_norm_reference,
    layer_norm_with_statistics,
    rms_norm_reference,
    rms_norm_with_statistics,
)


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


def slow_layer_norm(x, weight, bias, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * weight + bias


@pytest.mark.parametrize("shape", [(1, 3), (5, 7), (2, 3, 5)])
def test_layer_norm_is_shift_and_scale_of_each_row(assert_matches, rng, shape):
    x, weight, bias = 2 * rng.standard_normal(shape) + 3, rng.standard_normal(shape[-1]), rng.standard_normal(shape[-1])
    assert_matches(lambda *a: layer_norm(*a, 1e-6), lambda *a: slow_layer_norm(*a, 1e-6), x, weight, bias)


def test_layer_norm_without_weight_and_bias(assert_matches, rng):
    x = rng.standard_normal((4, 6))
    assert_matches(lambda x: layer_norm(x, None, None, 1e-6), lambda x: slow_layer_norm(x, 1, 0, 1e-6), x)


@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (700, 67), (130, 256)])
def test_built_norms_agree_with_the_references(assert_agree, rng, shape):
    x, residual = rng.standard_normal(shape) + 1, rng.standard_normal(shape)
    weight, bias = rng.standard_normal(shape[-1]) + 2, rng.standard_normal(shape[-1])
    # One number is its own mean: an epsilon of size 1 keeps its gradient from vanishing.
    assert_agree(lambda *a: rms_norm(*a, 0.5), lambda *a: rms_norm_reference(*a, 0.5), x, weight)
    assert_agree(lambda *a: add_rms_norm(*a, 0.5), lambda *a: add_rms_norm_reference(*a, 0.5), x, residual, weight)
    if shape[-1] > 1:
        assert_agree(lambda *a: layer_norm(*a, 1e-6), lambda *a: layer_norm_reference(*a, 1e-6), x, weight, bias)


def test_a_row_far_from_zero_keeps_its_deviation(rng):
    # In one pass over x and x squared, 1e4 squared would leave nothing of a deviation of 1.
    x = (rng.standard_normal((3, 64)) + 1e4).astype(np.float32)
    found = layer_norm(paddle.to_tensor(x), paddle.ones([64]), paddle.zeros([64]), 1e-6).numpy()
    np.testing.assert_allclose(found, slow_layer_norm(x.astype(np.float64), 1, 0, 1e-6), atol=3e-3)


def test_statistics_are_those_of_the_rows(rng):
    x = paddle.to_tensor((rng.standard_normal((2, 3, 16)) + 1).astype(np.float32))
    rows, weight = x.numpy().reshape(6, 16).astype(np.float64), paddle.ones([16])
    _, inverse = rms_norm_with_statistics(x, weight, 1e-6)
    np.testing.assert_allclose(inverse.numpy(), (rows**2).mean(-1) ** -0.5, rtol=1e-5)
    _, mean, inverse = layer_norm_with_statistics(x, weight, None, 1e-6)
    np.testing.assert_allclose(mean.numpy(), rows.mean(-1), rtol=1e-5)
    np.testing.assert_allclose(inverse.numpy(), 1 / rows.std(-1), rtol=1e-5)


def test_no_rows_give_no_rows():
    assert rms_norm(paddle.zeros([0, 4]), paddle.ones([4]), 1e-6).shape == [0, 4]
    assert layer_norm(paddle.zeros([0, 4]), paddle.ones([4]), None, 1e-6).shape == [0, 4]


def test_what_does_not_fit_is_named():
    x = paddle.ones([2, 4])
    with pytest.raises(ValueError, match="`weight` has shape"):
        rms_norm(x, paddle.ones([3]), 1e-6)
    with pytest.raises(ValueError, match="`residual` has shape"):
        add_rms_norm(x, paddle.ones([3, 4]), paddle.ones([4]), 1e-6)
    with pytest.raises(ValueError, match="`bias` is .*float64"):
        layer_norm(x, paddle.ones([4]), paddle.ones([4], dtype="float64"), 1e-6)


class Card:
    """A card with built ops under autocast: it tells which op was run with what, and computes nothing."""

    def __init__(self, monkeypatch, dtype):
        self.ran = []
        module = sys.modules[rms_norm_reference.__module__]
        monkeypatch.setattr(module, "product_dtype", lambda: dtype)
        monkeypatch.setattr(module.built, "on_gpu", lambda tensor: True)
        monkeypatch.setattr(module.built, "takes", lambda *given, on_cuda, is_mixed: on_cuda and is_mixed)
        monkeypatch.setattr(module.built, "run", self.run)
        monkeypatch.setattr(paddle, "is_autocast_enabled", lambda: True)

    def run(self, name, *arguments):
        self.ran.append((name, *(one for one in arguments if not isinstance(one, paddle.Tensor))))
        self.dtypes = [one.dtype for one in arguments if isinstance(one, paddle.Tensor)]
        return [None, None, None]


FLOAT32, BFLOAT16, FLOAT16 = 0, 1, 2  # as c_api.h counts dtypes


def of(dtype, *shape):
    return paddle.ones(shape, dtype=dtype)


@pytest.mark.parametrize(("half", "code"), [("bfloat16", BFLOAT16), ("float16", FLOAT16)])
def test_under_autocast_a_norm_before_products_gives_what_they_take(only_built, monkeypatch, half, code):
    card = Card(monkeypatch, getattr(paddle, half))
    for x in (of("float32", 2, 4), of(half, 2, 4)):
        rms_norm(x, of("float32", 4), 0.5, for_products=True)
        layer_norm(x, of("float32", 4), of("float32", 4), 0.5, for_products=True)
    assert card.ran == [("mixed_rms_norm", 0.5, code), ("mixed_layer_norm", 0.5, code)] * 2


@pytest.mark.parametrize(("half", "code"), [("bfloat16", BFLOAT16), ("float16", FLOAT16)])
def test_a_branch_in_half_precision_is_added_to_a_float32_residual_in_the_same_op(only_built, monkeypatch, half, code):
    card, weight = Card(monkeypatch, getattr(paddle, half)), of("float32", 4)
    for pair in (("float32", half), (half, "float32"), (half, half)):
        x, residual = (of(dtype, 2, 4) for dtype in pair)
        add_rms_norm(x, residual, weight, 0.5, for_products=True)
    codes = [(FLOAT32, code), (code, FLOAT32), (code, code)]
    assert card.ran == [("mixed_add_rms_norm", 0.5, code, *pair) for pair in codes]


def test_a_norm_before_anything_else_stays_in_float32_where_something_is(only_built, monkeypatch):
    card = Card(monkeypatch, paddle.bfloat16)
    rms_norm(of("bfloat16", 2, 4), of("float32", 4), 0.5)
    layer_norm(of("float32", 2, 4), of("float32", 4), None, 0.5)
    layer_norm(of("bfloat16", 2, 4), of("bfloat16", 4), of("bfloat16", 4), 0.5)
    assert card.ran == [("mixed_rms_norm", 0.5, FLOAT32), ("layer_norm", 0.5), ("layer_norm", 0.5)]


def test_narrower_weights_of_a_norm_that_stays_in_float32_are_widened(only_built, monkeypatch):
    card = Card(monkeypatch, None)
    rms_norm(of("float32", 2, 4), of("bfloat16", 4), 0.5, for_products=True)
    assert card.ran == [("mixed_rms_norm", 0.5, FLOAT32)] and card.dtypes == [paddle.float32] * 2


def test_where_products_stay_in_float32_so_do_norms(only_built, monkeypatch):
    card = Card(monkeypatch, None)
    rms_norm(of("float32", 2, 4), of("float32", 4), 0.5, for_products=True)
    add_rms_norm(of("float32", 2, 4), of("float32", 2, 4), of("float32", 4), 0.5, for_products=True)
    assert card.ran == [("rms_norm", 0.5), ("add_rms_norm", 0.5)]
