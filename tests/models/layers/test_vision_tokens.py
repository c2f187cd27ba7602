from __future__ import annotations

import numpy as np
import paddle
import pytest

from paddlemix.models.layers.vision_tokens import Meeting, find_places, place_vision

PLACES = np.array([[False, True, True], [True, False, False]])


def test_features_take_the_true_places_in_order_and_gradients_reach_both():
    embeds = paddle.full([2, 3, 2], 5.0)
    features = paddle.arange(6, dtype="float32").reshape([3, 2])
    embeds.stop_gradient = features.stop_gradient = False
    placed = place_vision(embeds, paddle.to_tensor(find_places(PLACES.astype(int), 1, 3)), features)
    assert placed.tolist() == [[[5, 5], [0, 1], [2, 3]], [[4, 5], [5, 5], [5, 5]]]
    placed.sum().backward()
    assert features.grad.tolist() == [[1, 1]] * 3
    assert (embeds.grad.numpy()[..., 0] == ~PLACES).all()


@pytest.mark.parametrize("count", [2, 4])
def test_another_number_of_features_is_refused_with_both_numbers(count):
    with pytest.raises(ValueError, match=rf"3 vision tokens stand in the sequences.* make {count}"):
        find_places(PLACES.astype(int), 1, count)


@pytest.mark.parametrize("trained", [(True, True), (True, False), (False, True)])
def test_what_meets_is_unchanged_and_so_are_the_gradients_of_what_is_trained(trained):
    values = paddle.rand([1, 3, 2]), paddle.rand([2, 2])
    for value, is_trained in zip(values, trained, strict=True):
        value.stop_gradient = not is_trained
    met = Meeting.apply(*values)
    assert [one.tolist() for one in met] == [one.tolist() for one in values]
    (met[0].sum() * 2 + met[1].sum() * 3).backward()
    for value, is_trained, factor in zip(values, trained, (2, 3), strict=True):
        assert (value.grad is not None) == is_trained
        assert not is_trained or value.grad.tolist() == paddle.full_like(value, factor).tolist()
