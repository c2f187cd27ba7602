from __future__ import annotations

from itertools import pairwise

import numpy as np
import paddle
import pytest

from paddlemix.models.layers.mask import causal_mask
from paddlemix.ops import CausalMask, CausalSegments, Segments, attention, segment_attention
from paddlemix.ops.tensors.attention_reference import attention_reference, segment_attention_reference
from paddlemix.ops.tensors.mask import HIDDEN


def slow_attention(query, key, value, mask=None):
    """Attend one query head of one sample at a time; head h reads key head h // (heads / groups)."""
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
        np.testing.assert_allclose(segment_attention(*tensors, Segments(lengths)).numpy(), arrays[2], atol=1e-6, rtol=0)
        return
    assert_matches(lambda *x: segment_attention(*x, Segments(lengths)), lambda *x: slow_segments(*x, lengths), *arrays)


@pytest.mark.parametrize("lengths", [[3, 3], [2, 4]])
def test_nothing_crosses_from_one_segment_to_the_next(rng, lengths):
    query, key, value = (paddle.to_tensor(rng.standard_normal((6, 2, 3)).astype(np.float32)) for _ in range(3))
    before = segment_attention(query, key, value, Segments(lengths)).numpy()
    key[: lengths[0]], value[: lengths[0]] = 5.0, 100.0
    after = segment_attention(query, key, value, Segments(lengths)).numpy()
    assert (after[lengths[0] :] == before[lengths[0] :]).all()
    assert np.abs(after[: lengths[0]] - before[: lengths[0]]).min() > 1


def masks(rng, batch, length, span):
    left, right = np.ones((batch, span), np.int64), np.ones((batch, span), np.int64)
    left[0, : span // 3], right[-1, span - span // 3 :] = 0, 0
    return {
        "full": None,
        "causal": CausalMask(),
        "padded on the left": CausalMask(paddle.to_tensor(left)),
        "padded on the right": CausalMask(paddle.to_tensor(right)),
        "one for all": paddle.to_tensor(rng.standard_normal((length, span)).astype(np.float32)),
        "one a row": paddle.to_tensor(rng.standard_normal((batch, 1, length, span)).astype(np.float32)),
    }


@pytest.mark.parametrize(
    ("batch", "length", "span", "heads", "groups", "size"),
    [
        (2, 7, 7, 2, 1, 16),
        (1, 70, 70, 3, 3, 20),
        (2, 130, 130, 4, 2, 64),
        (1, 65, 200, 2, 2, 80),
        (2, 1, 77, 8, 4, 64),
        (3, 3, 77, 4, 2, 128),
        (1, 129, 129, 6, 2, 33),
        (1, 5, 3, 2, 2, 16),
    ],
)
@pytest.mark.parametrize(
    "kind", ["full", "causal", "padded on the left", "padded on the right", "one for all", "one a row"]
)
def test_built_attention_agrees_with_the_reference(assert_agree, rng, batch, length, span, heads, groups, size, kind):
    mask = masks(rng, batch, length, span)[kind]
    arrays = inputs(rng, batch, length, span, heads, groups, size)
    assert_agree(lambda *x: attention(*x, mask), lambda *x: attention_reference(*x, mask), *arrays)


@pytest.mark.parametrize("lengths", [[7], [1, 1, 1], [4, 1, 300], [70, 64, 65, 1], [128, 128]])
def test_built_segments_agree_with_the_reference(assert_agree, rng, lengths):
    total = sum(lengths)
    query, key, value = (rng.standard_normal((total, 4, 24)) for _ in range(3))
    if max(lengths) > 1:  # the softmax of one score does not depend on it
        assert_agree(
            lambda *x: segment_attention(*x, Segments(lengths)),
            lambda *x: segment_attention_reference(*x, Segments(lengths)),
            query,
            key,
            value,
        )
        pack = CausalSegments(paddle.to_tensor(np.cumsum([0, *lengths]).astype(np.int32)))
        assert_agree(
            lambda *x: attention(*x, pack),
            lambda *x: attention_reference(*x, pack),
            query[None],
            key[None, :, ::2],
            value[None, :, ::2],
        )
        return
    tensors = [paddle.to_tensor(x.astype(np.float32)) for x in (query, key, value)]
    np.testing.assert_allclose(segment_attention(*tensors, Segments(lengths)).numpy(), value, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_cache_with_room_behind_its_keys_gives_what_a_dense_one_gives(rng, batch):
    room = [paddle.to_tensor(rng.standard_normal((batch, 90, 2, 16)).astype(np.float32)) for _ in range(2)]
    query = paddle.to_tensor(rng.standard_normal((batch, 1, 4, 16)).astype(np.float32))
    views = [x[:, :70] for x in room]
    dense = [paddle.to_tensor(x.numpy()[:, :70].copy()) for x in room]
    found = attention(query, *views, CausalMask())
    assert (found.numpy() == attention(query, *dense, CausalMask()).numpy()).all()


@pytest.mark.parametrize("length", [1, 70])
def test_scores_of_ten_thousand_pick_the_largest(rng, length):
    query = np.zeros((1, length, 2, 16), np.float32)
    key, value = np.zeros((1, 80, 2, 16), np.float32), rng.standard_normal((1, 80, 2, 16)).astype(np.float32)
    query[..., 0], key[..., 0] = 400.0, np.arange(80)[:, None]
    found = attention(*(paddle.to_tensor(x) for x in (query, key, value)))
    np.testing.assert_allclose(found.numpy(), np.broadcast_to(value[:, -1:], query.shape), atol=1e-6)


@pytest.mark.parametrize("hidden", [HIDDEN, -np.inf])
def test_a_key_that_a_bias_hides_has_no_weight_and_no_gradient(rng, hidden):
    arrays = [x.astype(np.float32) for x in inputs(rng, length=70, span=70, size=16)]
    bias = np.zeros((70, 70), np.float32)
    bias[:, 3] = hidden
    tensors = [paddle.to_tensor(x, stop_gradient=False) for x in arrays]
    attention(*tensors, paddle.to_tensor(bias)).sum().backward()
    for tensor in tensors[1:]:
        # Paddle's softmax on a CPU gives what is hidden e^-64.
        assert np.isfinite(tensor.grad.numpy()).all() and np.abs(tensor.grad.numpy()[:, 3]).max() < 1e-20
    assert np.abs(tensors[2].grad.numpy()[:, 4]).min() > 0


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_the_number_of_threads_changes_no_value_and_gradients_by_rounding_alone(only_built, rng, threads):
    from paddlemix.ops import num_threads, set_num_threads

    arrays = inputs(rng, 1, 200, 200, 4, 2, 32)
    before = num_threads()
    found = {}
    for count in (1, threads):
        set_num_threads(count)
        tensors = [paddle.to_tensor(x.astype(np.float32), stop_gradient=False) for x in arrays]
        value = attention(*tensors, CausalMask())
        value.backward(paddle.ones_like(value))
        found[count] = [value.numpy(), *(tensor.grad.numpy() for tensor in tensors)]
    set_num_threads(before)
    for index, (one, many) in enumerate(zip(*found.values(), strict=True)):
        # With more threads than groups of heads, what a query gets from two halves of the keys is added up last.
        np.testing.assert_allclose(many, one, atol=2e-6 if index == 1 else 0, rtol=0)


def test_what_does_not_fit_is_named():
    query, key = paddle.ones([1, 3, 4, 8]), paddle.ones([1, 5, 2, 8])
    for name, call in {
        "value": lambda: attention(query, key, key[:, :4]),
        "key": lambda: attention(query, paddle.ones([2, 5, 2, 8]), paddle.ones([2, 5, 2, 8])),
        "query": lambda: attention(query, paddle.ones([1, 5, 3, 8]), paddle.ones([1, 5, 3, 8])),
        "mask": lambda: attention(query, key, key, paddle.ones([3, 4])),
        "segments": lambda: segment_attention(query[0], query[0], query[0], Segments([1, 1])),
        "lengths": lambda: Segments([4, -1]),
    }.items():
        with pytest.raises(ValueError, match=f"`{name}`"):
            call()
    with pytest.raises(ValueError, match="`mask` is .*float64"):
        attention(query, key, key, paddle.ones([3, 5], dtype="float64"))
    with pytest.raises(ValueError, match="`mask` has shape"):
        attention(query, key, key, CausalMask(paddle.ones([1, 4])))
