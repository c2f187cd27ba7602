from __future__ import annotations

import paddle
import pytest

from paddlemix.models.layers.mask import causal_mask


def seen(mask, length, span):
    return (mask.dense(length, span) == 0).astype("int64").tolist()


def test_a_query_sees_itself_and_what_comes_before_it():
    assert seen(causal_mask(3, 3, None), 3, 3) == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_the_queries_are_the_last_of_the_span():
    assert seen(causal_mask(2, 4, None), 2, 4) == [[1, 1, 1, 0], [1, 1, 1, 1]]


def test_one_query_without_padding_needs_no_mask():
    assert causal_mask(1, 5, None) is None


@pytest.mark.parametrize("dtype", ["int64", "bool"])
def test_padding_is_hidden_from_everyone(dtype):
    mask = causal_mask(2, 3, paddle.to_tensor([[0, 1, 1], [1, 1, 0]]).astype(dtype))
    assert mask.dense(2, 3).shape == [2, 1, 2, 3]
    assert seen(mask, 2, 3) == [[[[0, 1, 0], [0, 1, 1]]], [[[1, 1, 0], [1, 1, 0]]]]


def test_what_is_hidden_is_far_below_any_score_and_finite():
    mask = causal_mask(2, 2, None).dense(2, 2)
    assert mask.dtype == paddle.float32 and -1e30 < float(mask.min()) < -1e6
