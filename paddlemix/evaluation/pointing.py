"""How well predicted points meet the gold ones, such as where to click.

The points of a question are paired one to one so that the pairs' total distance is as small as it can be. A question is
right when it has as many predicted points as gold ones and no pair is further apart than `REACH`, x and y counted in
fractions of the image's width and height.

Source: Rawles et al., "Android in the Wild: A Large-Scale Dataset for Android Device Control", 2023, arXiv:2307.10088,
where a tap within 14 % of the screen is the same tap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

PointLike = tuple[float, float]
REACH = 0.14


def points_meet(gold: Sequence[PointLike], predicted: Sequence[PointLike]) -> bool:
    """Tell whether one question's points are right.

    Args:
        gold: x, y in fractions of the image's width and height.
        predicted: likewise.

    Returns:
        Whether no point is missing or surplus and every pair is within reach.
    """
    if len(gold) != len(predicted):
        return False
    apart = np.array(gold).reshape(-1, 1, 2) - np.array(predicted).reshape(1, -1, 2)
    distances = np.hypot(apart[..., 0], apart[..., 1])
    return bool((distances[linear_sum_assignment(distances)] <= REACH).all())


def pointing_scores(right: Sequence[bool]) -> dict[str, Any]:
    """Compute the accuracy over questions that ask for points.

    Args:
        right: whether each is right; at least one.

    Returns:
        `accuracy`: share of questions that are right, 0..1; `questions`: their number.
    """
    return {"accuracy": sum(right) / len(right), "questions": len(right)}
