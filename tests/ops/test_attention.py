from __future__ import annotations

from itertools import pairwise

import numpy as np
import paddle
import pytest

from paddlemix.models.layers.mask import causal_mask
from paddlemix.ops import CausalMask, attention, segment_attention
from paddlemix.ops.mask import HIDDEN


def slow_attention(query, key, value, mask=None):
    """One query head of one sample at a time; head h reads key head h // (heads / groups)."""
    batch, length, heads, size = query.shape
    group = heads // key.shape[2]
    mask = np.zeros((1, 1, length, key.shape[1])) if mask is None else mask.reshape(-1, 1, *mask.shape[-2:])
    mixed = np.empty((batch, length, heads, size))
    for sample in range(batch):
        for head in range(heads):
            scores = (
                query[sample, :, head] @ key[sample, :, head // group].T / np.sqrt(size) + mask[sample % len(mask), 0]
            )
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            mixed[sample, :, head] = weights / weights.sum(-1, keepdims=True) @ value[sample, :, head // group]
    return mixed


def slow_segments(query, key, value, lengths):
    ends = np.cumsum([0, *lengths])
    parts = [slow_attention(*(x[None, start:end] for x in (query, key, value)))[0] for start, end in pairwise(ends)]
    return np.concatenate(parts)


def inputs(rng, batch=2, length=3, span=5, heads=4, groups=2, size=2):
    return (
        rng.standard_normal((batch, length, heads, size)),
        rng.standard_normal((batch, span, groups, size)),
        rng.standard_normal((batch, span, groups, size)),
    )


@pytest.mark.parametrize(("heads", "groups"), [(3, 3), (4, 2), (6, 2), (5, 1)])
@pytest.mark.parametrize("size", [2, 3])
def test_without_a_mask_every_query_sees_every_key_of_its_group(assert_matches, rng, heads, groups, size):
    arrays = inputs(rng, heads=heads, groups=groups, size=size)
    assert_matches(lambda *x: attention(*x, mask=None), slow_attention, *arrays)


@pytest.mark.parametrize(("heads", "groups"), [(3, 3), (4, 2), (5, 1)])
def test_a_mask_for_all_rows_hides_the_same_keys_in_each(assert_matches, rng, heads, groups):
    mask = np.where(np.tril(np.ones((3, 5)), 2) > 0, 0, HIDDEN) + rng.standard_normal((3, 5))
    tensor = paddle.to_tensor(mask.astype(np.float32))
    assert_matches(
        lambda *x: attention(*x, mask=tensor),
        lambda *x: slow_attention(*x, tensor.numpy().astype(np.float64)),
        *inputs(rng, heads=heads, groups=groups),
    )


@pytest.mark.parametrize(("heads", "groups"), [(3, 3), (4, 2), (5, 1)])
def test_a_mask_per_row_hides_its_own_keys_in_each(assert_matches, rng, heads, groups):
    tensor = CausalMask(paddle.to_tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]])).dense(3, 5)
    assert tensor.ndim == 4
    assert_matches(
        lambda *x: attention(*x, mask=tensor),
        lambda *x: slow_attention(*x, tensor.numpy().astype(np.float64)),
        *inputs(rng, heads=heads, groups=groups),
    )


def test_one_query_of_a_decoding_step_is_the_last_row_of_all(rng):
    query, key, value = (paddle.to_tensor(array.astype(np.float32)) for array in inputs(rng, length=5))
    whole = attention(query, key, value, causal_mask(5, 5, None))
    step = attention(query[:, -1:], key, value, causal_mask(1, 5, None))
    np.testing.assert_allclose(step.numpy(), whole[:, -1:].numpy(), atol=1e-6, rtol=0)


def test_a_hidden_key_has_no_weight_at_all(rng):
    query, key, value = (paddle.to_tensor(array.astype(np.float32)) for array in inputs(rng))
    mask = causal_mask(3, 5, paddle.to_tensor([[0, 1, 1, 1, 1], [0, 1, 1, 1, 1]]))
    before = attention(query, key, value, mask).numpy()
    key[:, 0], value[:, 0] = 100.0, 1e4
    assert (attention(query, key, value, mask).numpy() == before).all()


def test_a_query_that_sees_nothing_is_finite(rng):
    query, key, value = (paddle.to_tensor(array.astype(np.float32)) for array in inputs(rng, length=5))
    mask = causal_mask(5, 5, paddle.to_tensor([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0]]))
    assert np.isfinite(attention(query, key, value, mask).numpy()).all()


@pytest.mark.parametrize("lengths", [[7], [3, 3, 3], [1, 1, 1], [4, 1, 3], [1, 5], [2, 2, 3]])
def test_segments_of_equal_and_unequal_lengths_attend_inside_themselves(assert_matches, rng, lengths):
    arrays = [rng.standard_normal((sum(lengths), 2, 3)) for _ in range(3)]
    if max(lengths) == 1:
        # A softmax over one key does not depend on query and key, so only the value is compared.
        tensors = [paddle.to_tensor(array.astype(np.float32)) for array in arrays]
        np.testing.assert_allclose(segment_attention(*tensors, lengths).numpy(), arrays[2], atol=1e-6, rtol=0)
        return
    assert_matches(lambda *x: segment_attention(*x, lengths), lambda *x: slow_segments(*x, lengths), *arrays)


@pytest.mark.parametrize("lengths", [[3, 3], [2, 4]])
def test_nothing_crosses_from_one_segment_to_the_next(rng, lengths):
    query, key, value = (paddle.to_tensor(rng.standard_normal((6, 2, 3)).astype(np.float32)) for _ in range(3))
    before = segment_attention(query, key, value, lengths).numpy()
    key[: lengths[0]], value[: lengths[0]] = 5.0, 100.0
    after = segment_attention(query, key, value, lengths).numpy()
    assert (after[lengths[0] :] == before[lengths[0] :]).all()
    assert np.abs(after[: lengths[0]] - before[: lengths[0]]).min() > 1
