from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from paddlemix.weights.share import Share, gather_whole, own_part, share_of, whole_shape

RANKS = 2


def shares(axis, blocks):
    return [Share(axis, blocks, SimpleNamespace(nranks=RANKS, rank=rank)) for rank in range(RANKS)]


def parameter_of(share, shape):
    parameter = paddle.zeros(shape)
    share.mark(parameter)
    return parameter


def test_every_place_of_the_whole_belongs_to_one_rank_and_query_key_and_value_are_each_cut():
    first, second = ([list(range(12))[there] for _, there in share.places(12)] for share in shares(0, 3))
    assert first == [[0, 1], [4, 5], [8, 9]] and second == [[2, 3], [6, 7], [10, 11]]
    here = [here for here, _ in shares(0, 3)[0].places(12)]
    assert here == [slice(0, 2), slice(2, 4), slice(4, 6)]


@pytest.mark.parametrize(("axis", "blocks"), [(0, 1), (1, 1), (1, 3)])
def test_a_part_is_cut_from_what_is_as_large_as_the_whole_and_from_nothing_else(axis, blocks):
    whole = np.arange(4 * 6).reshape(4, 6)
    local = [4, 6]
    local[axis] //= RANKS
    for share in shares(axis, blocks):
        parameter = parameter_of(share, local)
        assert whole_shape(parameter) == [4, 6] and share_of(parameter) is share
        pieces = [whole.take(range(there.start, there.stop), axis) for _, there in share.places(whole.shape[axis])]
        part = own_part(whole, parameter)
        assert len(pieces) == blocks and list(part.shape) == local
        np.testing.assert_array_equal(part, np.concatenate(pieces, axis))
        power = np.array([0.9])  # a state of the optimizer that is one number
        assert own_part(power, parameter) is power


def test_a_split_parameter_is_known_to_paddle_as_one_and_another_is_left_as_it_is():
    parameter, plain = parameter_of(shares(1, 1)[0], [2, 3]), paddle.zeros([2, 3])
    assert parameter.is_distributed and parameter.split_axis == 1
    assert share_of(plain) is None and whole_shape(plain) == [2, 3]
    assert gather_whole(plain, plain) is plain and own_part(np.ones(3), plain).shape == (3,)
