from __future__ import annotations

from itertools import pairwise

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddlemix.handover import Layout
from paddlemix.ops import CausalSegments, Segments, attention

LENGTHS = [[7], [3, 3, 3], [1, 1, 1], [4, 1, 3], [1, 5], [10, 9, 2, 8, 1]]


def segments_of(lengths):
    return CausalSegments(paddle.to_tensor(np.cumsum([0, *lengths]), dtype="int32"))


def slow_pack(query, key, value, lengths):
    """Attend one head of one token at a time, in float64."""
    mixed, group = np.empty_like(query), query.shape[2] // key.shape[2]
    for start, end in pairwise(np.cumsum([0, *lengths])):
        for token in range(start, end):
            for head in range(query.shape[2]):
                seen = slice(start, token + 1)
                scores = key[0, seen, head // group] @ query[0, token, head] / np.sqrt(query.shape[3])
                weights = np.exp(scores - scores.max())
                mixed[0, token, head] = weights / weights.sum() @ value[0, seen, head // group]
    return mixed


def inputs(rng, total, heads=4, groups=2, size=3):
    return [rng.standard_normal((1, total, count, size)) for count in (heads, groups, groups)]


@pytest.mark.parametrize("lengths", [lengths for lengths in LENGTHS if max(lengths) > 1])
@pytest.mark.parametrize(("heads", "groups"), [(3, 3), (4, 2), (3, 1)])
def test_each_sample_of_a_pack_is_attended_to_causally_by_itself(assert_matches, rng, lengths, heads, groups):
    arrays = inputs(rng, sum(lengths), heads, groups, size=2)
    segments = segments_of(lengths)
    assert_matches(lambda *x: attention(*x, segments), lambda *x: slow_pack(*x, lengths), *arrays)


def test_samples_of_one_token_see_themselves_alone(rng):
    arrays = inputs(rng, 3)
    mixed = attention(*(paddle.to_tensor(array.astype(np.float32)) for array in arrays), segments_of([1, 1, 1]))
    np.testing.assert_allclose(mixed.numpy(), np.repeat(arrays[2], 2, axis=2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("lengths", [[3, 3], [2, 4], [5, 1]])
def test_nothing_crosses_from_one_sample_to_the_next(rng, lengths):
    query, key, value = (paddle.to_tensor(array.astype(np.float32)) for array in inputs(rng, 6))
    segments = segments_of(lengths)
    before = attention(query, key, value, segments).numpy()
    key[:, : lengths[0]], value[:, : lengths[0]] = 5.0, 100.0
    after = attention(query, key, value, segments).numpy()
    assert (after[:, lengths[0] :] == before[:, lengths[0] :]).all()
    assert np.abs(after[:, : lengths[0]] - before[:, : lengths[0]]).min() > 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_groups_hold_every_token_once_and_the_way_back_finds_it(lengths):
    segments = segments_of(lengths)
    batches = np.concatenate([group.places.numpy() for group in segments.groups])
    assert sum(group.count for group in segments.groups) == len(lengths)
    assert batches[segments.way_back.numpy()].tolist() == list(range(sum(lengths)))
    assert len(batches) <= 1.25 * sum(lengths) + len(lengths)  # rows are padded to at most 1 / 0.8 of their length


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=8))
def test_a_row_of_a_group_is_one_segment_from_its_first_token_on(lengths):
    segments, seen = segments_of(lengths), []
    starts = dict(zip(segments.ends, segments.ends[1:], strict=False))
    for group in segments.groups:
        for row in group.places.numpy().reshape(group.count, group.longest).tolist():
            end = starts[row[0]]
            assert row == [min(row[0] + step, end - 1) for step in range(group.longest)]
            seen.append(row[0])
    assert sorted(seen) == segments.ends[:-1]


@pytest.mark.parametrize("ends", [[0], [1, 4], [0, 3, 3], [0, 3, 2]])
def test_ends_that_are_none_are_refused(ends):
    with pytest.raises(ValueError, match="expected 0 and then each sample's end"):
        CausalSegments(paddle.to_tensor(ends, dtype="int32"))


def test_a_pack_of_another_length_is_refused(rng):
    tensors = [paddle.to_tensor(array) for array in inputs(rng, 5)]
    with pytest.raises(ValueError, match="a pack of 4 tokens was expected as one row, not 1 of 5 with 5 keys"):
        attention(*tensors, segments_of([2, 2]))


def test_the_ends_of_segments_are_one_tensor_for_all_layers():
    segments = Segments([3, 0, 2])
    assert segments.total == 5
    assert segments.cu_seqlens.tolist() == [0, 3, 3, 5]
    assert segments.cu_seqlens.dtype == paddle.int32
    assert segments.cu_seqlens is segments.cu_seqlens


def test_segments_of_one_length_and_those_of_a_layout_end_where_their_lengths_say():
    layout = Layout({"ends": np.array([0, 3, 3, 5], np.int32)})
    for segments, lengths in ((Segments.alike(3, 4), [4, 4, 4]), (Segments.laid_out(layout, "ends"), [3, 0, 2])):
        assert segments.lengths == lengths and segments.cu_seqlens.dtype == paddle.int32
        assert segments.cu_seqlens.tolist() == [0, *np.cumsum(lengths)]
    assert Segments.laid_out(layout, "ends").cu_seqlens is layout.tensor("ends")


def test_ends_that_the_host_knows_are_not_read(monkeypatch):
    ends = np.array([0, 2, 5], np.int32)
    tensor = paddle.to_tensor(ends)
    for name in ("numpy", "tolist"):
        monkeypatch.setattr(paddle.Tensor, name, lambda *_: pytest.fail("the tensor was read"))
    segments = CausalSegments(tensor, ends)
    assert segments.ends == [0, 2, 5] and segments.lengths == [2, 3] and len(segments.groups) == 2
    assert segments.way_back.shape == [5]
