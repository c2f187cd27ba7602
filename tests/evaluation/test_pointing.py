import pytest

from paddlemix.evaluation.pointing import points_meet


@pytest.mark.parametrize(
    ("gold", "predicted", "right"),
    [
        ([(0.5, 0.5)], [(0.5, 0.5)], True),
        ([(0.5, 0.5)], [(0.5, 0.639)], True),
        ([(0.5, 0.5)], [(0.6, 0.6)], False),
        ([(0.5, 0.5)], [(0.36, 0.5)], True),
        ([(0.5, 0.5)], [(0.359, 0.5)], False),
        ([(0.5, 0.5)], [], False),
        ([(0.5, 0.5)], [(0.5, 0.5), (0.5, 0.5)], False),
        ([(0.1, 0.1), (0.9, 0.9)], [(0.9, 0.85), (0.1, 0.15)], True),
        ([(0.1, 0.1), (0.9, 0.9)], [(0.1, 0.15), (0.1, 0.15)], False),
        ([], [], True),
    ],
)
def test_as_many_points_each_within_reach_of_its_partner_are_right(gold, predicted, right):
    assert points_meet(gold, predicted) is right
