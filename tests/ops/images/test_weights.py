from __future__ import annotations

import numpy as np
import pytest

from paddlemix.ops.images.weights import axis_weights

SIZES = [(1, 1), (1, 50), (50, 1), (7, 7), (640, 644), (480, 476), (1000, 30), (30, 1000), (3, 2)]


@pytest.mark.parametrize("precision", ["pillow", "torch"])
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_weights_stay_within_the_axis_add_up_to_one_and_fit_32_bits(old, new, precision):
    axis = axis_weights(old, new, precision)
    assert len(axis.first) == len(axis.count) == len(axis.weights) == new
    assert (axis.first >= 0).all() and (axis.count >= 1).all() and (axis.first + axis.count <= old).all()
    assert (axis.weights[np.arange(axis.weights.shape[1]) >= axis.count[:, None]] == 0).all()
    one = 1 << axis.fraction_bits
    # Each weight is rounded on its own.
    assert (np.abs(axis.weights.sum(axis=1) - one) <= axis.count).all()
    assert (255 * np.abs(axis.weights.astype(np.int64)).sum(axis=1) + one // 2 < 2**31).all()


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_every_weight_in_torchs_precision_fits_16_bits(old, new):
    axis = axis_weights(old, new, "torch")
    assert axis.fraction_bits <= 22 and np.abs(axis.weights).max() < 2**15


def test_an_axis_that_grows_takes_four_places_each_away_from_its_ends():
    axis = axis_weights(10, 100, "pillow")
    assert (axis.count[30:70] == 4).all() and axis.count[0] < 4


def test_a_place_between_two_old_ones_weighs_both_sides_alike():
    axis = axis_weights(16, 8, "pillow")
    weights = axis.weights[4, : axis.count[4]]
    assert len(weights) == 8
    np.testing.assert_array_equal(weights, weights[::-1])
