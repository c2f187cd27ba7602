"""Areas of polygons, checked against counting points."""

from __future__ import annotations

import numpy as np
import pytest

from paddlemix.conversation import goes_round
from paddlemix.evaluation.grounding import iou, match_boxes
from paddlemix.evaluation.polygons import area, shared_area

SQUARE = [(0, 0), (10, 0), (10, 10), (0, 10)]
DIAMOND = [(5, -5), (15, 5), (5, 15), (-5, 5)]
DENTED = [(0, 0), (10, 0), (2, 2), (0, 10)]
FAR = [(20, 20), (30, 20), (30, 30), (20, 30)]


@pytest.mark.parametrize(("polygon", "expected"), [(SQUARE, 100), (DIAMOND, 200), (DENTED, 20), (FAR, 100)])
def test_an_area_does_not_depend_on_where_or_which_way_the_corners_begin(polygon, expected):
    for first in range(4):
        turned = polygon[first:] + polygon[:first]
        assert area(turned) == area(turned[::-1]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [(SQUARE, SQUARE, 100), (SQUARE, DIAMOND, 100), (SQUARE, DENTED, 20), (DENTED, DENTED, 20), (SQUARE, FAR, 0)],
)
def test_shared_areas_do_not_depend_on_where_or_which_way_the_corners_begin(one, other, expected):
    for first in range(4):
        turned = other[first:] + other[:first]
        assert shared_area(one, turned) == pytest.approx(expected)
        assert shared_area(turned[::-1], one) == pytest.approx(expected)


def inside(points, polygon):
    """Whether a line from each point to the right crosses the sides an odd number of times."""
    crossings = np.zeros(len(points), dtype=int)
    for (x1, y1), (x2, y2) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        spans = (points[:, 1] < y1) != (points[:, 1] < y2)
        with np.errstate(divide="ignore", invalid="ignore"):
            crossings += spans & (points[:, 0] < x1 + (points[:, 1] - y1) * (x2 - x1) / (y2 - y1))
    return crossings % 2 == 1


def test_shared_areas_are_those_that_counted_points_give():
    numbers = np.random.default_rng(0)
    points = (np.stack(np.meshgrid(np.arange(400), np.arange(400)), -1).reshape(-1, 2) + 0.5) / 40
    met = 0
    for _ in range(60):
        angles = np.sort(numbers.uniform(0, 2 * np.pi, (2, 4)))
        lengths, centres = numbers.uniform(1, 4, (2, 4)), numbers.uniform(4, 6, (2, 1, 2))
        corners = centres + np.stack([np.cos(angles), np.sin(angles)], -1) * lengths[..., None]
        one, other = (list(map(tuple, polygon)) for polygon in corners)
        if not all(goes_round(polygon.reshape(-1).tolist()) for polygon in corners):
            continue
        counted = (inside(points, one) & inside(points, other)).sum() / 1600
        met += counted > 1
        assert shared_area(one, other) == pytest.approx(counted, abs=0.1)
    assert met > 20


def test_a_quad_meets_boxes_and_quads_by_its_own_area():
    diamond = (5, 0, 10, 5, 5, 10, 0, 5)
    assert iou(diamond, diamond) == pytest.approx(1)
    assert iou((0, 0, 10, 10), diamond) == iou(diamond, (0, 0, 10, 10)) == pytest.approx(0.5)
    # Their boxes meet, they do not.
    assert iou(diamond, (0, 0, 2, 2)) == 0
    assert match_boxes([diamond], [diamond, (0, 0, 1, 1)]).ious == pytest.approx((1,))
    with pytest.raises(ValueError, match="no box"):
        iou((1, 2, 3, 4, 5, 6), diamond)
