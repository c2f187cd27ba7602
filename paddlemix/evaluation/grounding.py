"""How well predicted boxes meet the gold ones.

The boxes of a question are paired one to one so that the pairs' total IoU is as large as it can be. A question is right
when it has as many predicted boxes as gold ones and every pair reaches the IoU threshold. So

- one gold box and one predicted box: the accuracy of RefCOCO and sets like it (IoU of 0.5 itself counts as right);
- a missing box or a surplus one makes the question wrong;
- no gold box: right only when nothing is predicted.

Source: He et al., "GREC: Generalized Referring Expression Comprehension", 2023, arXiv:2308.16182,
Precision@(F1=1, IoU>=0.5).

A quad counts as a box does, and the area that it shares with another is that of their polygons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from paddlemix.conversation import Box, Placed, Quad
from paddlemix.evaluation.polygons import area, shared_area

# As numbers alone, a box or a quad lies on the first image.
BoxLike = Box | Quad | tuple[float, ...]
GROUPS = ("none", "one", "several")


@dataclass(frozen=True)
class Match:
    """One question's predicted boxes, set against its gold ones.

    Attributes:
        gold: number of gold boxes.
        predicted: number of predicted boxes.
        ious: IoU of each pair, 0..1; there are min(gold, predicted) pairs.
    """

    gold: int
    predicted: int
    ious: tuple[float, ...]

    @property
    def places(self) -> int:
        """Gold boxes and surplus predictions: the pairs, and all that found no partner."""
        return max(self.gold, self.predicted)

    @property
    def group(self) -> str:
        """Whether the question has "none", "one" or "several" gold boxes."""
        return GROUPS[min(self.gold, 2)]

    def is_right(self, threshold: float) -> bool:
        """Tell whether no box is missing or surplus and every pair's IoU is at least `threshold`."""
        return self.gold == self.predicted and all(iou >= threshold for iou in self.ious)


def iou_matrix(gold: Sequence[BoxLike], predicted: Sequence[BoxLike]) -> np.ndarray:
    """Compute the intersection over union of every gold box with every predicted one.

    Boxes on different images, and boxes without area (x2 <= x1 or y2 <= y1), overlap with nothing.

    Args:
        gold: G boxes or quads in pixels.
        predicted: P boxes or quads in pixels.

    Returns:
        float64[G, P], 0..1.

    Raises:
        ValueError: a box is not in pixels, has neither four numbers nor a quad's eight, or one of them is not finite.
    """
    rows, columns = _corners(gold)[:, None], _corners(predicted)[None]
    first, last = np.maximum(rows[..., 1:3], columns[..., 1:3]), np.minimum(rows[..., 3:5], columns[..., 3:5])
    shared = _area(first, last) * (rows[..., 0] == columns[..., 0])
    union = _area(rows[..., 1:3], rows[..., 3:5]) + _area(columns[..., 1:3], columns[..., 3:5]) - shared
    ious = np.divide(shared, union, out=np.zeros_like(union), where=union > 0)
    # Quads stand above as the boxes round them, which only tell where they may meet.
    for row, column in np.argwhere(shared > 0).tolist():
        if len(_numbers(gold[row])) + len(_numbers(predicted[column])) > 8:
            ious[row, column] = _polygon_iou(_polygon(gold[row]), _polygon(predicted[column]))
    return ious


def _corners(boxes: Sequence[BoxLike]) -> np.ndarray:
    """Lay boxes, or the boxes round quads, out as float64[N, 5]: image, x1, y1, x2, y2."""
    rows = [_pixel_row(box) for box in boxes]
    return np.array(rows, dtype=np.float64).reshape(-1, 5)


def _pixel_row(box: BoxLike) -> tuple[float, ...]:
    if isinstance(box, Placed) and box.unit != "pixel":
        raise ValueError(f"{box} is in unit {box.unit!r}, expected 'pixel': convert it with its image's size")
    numbers = _numbers(box)
    if len(numbers) not in (4, 8) or not all(math.isfinite(value) for value in numbers):
        raise ValueError(f"{box} is no box: expected four finite numbers (x1, y1, x2, y2), or eight of a quad")
    if len(numbers) == 8:
        numbers = (min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2]))
    return (box.image if isinstance(box, Placed) else 0, *numbers)


def _numbers(box: BoxLike) -> tuple[float, ...]:
    return box.numbers if isinstance(box, Placed) else box


def _polygon(box: BoxLike) -> list[tuple[float, float]]:
    """List the corners of a box or a quad, one after the other round it."""
    numbers = _numbers(box)
    if len(numbers) == 8:
        return list(zip(numbers[::2], numbers[1::2], strict=True))
    x1, y1, x2, y2 = numbers
    return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]


def _polygon_iou(one: list[tuple[float, float]], other: list[tuple[float, float]]) -> float:
    shared = shared_area(one, other)
    union = area(one) + area(other) - shared
    return shared / union if union > 0 else 0.0


def _area(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(last - first, 0.0), axis=-1)


def iou(one: BoxLike, other: BoxLike) -> float:
    """Compute the intersection over union of two boxes in pixels, 0..1; see `iou_matrix`."""
    return float(iou_matrix([one], [other])[0, 0])


def match_boxes(gold: Sequence[BoxLike], predicted: Sequence[BoxLike]) -> Match:
    """Pair one question's boxes one to one so that the total IoU is greatest.

    Args:
        gold: boxes in pixels; none when the right answer is that there is nothing.
        predicted: boxes in pixels; one without area is surplus, as it meets no gold box.

    Returns:
        The pairs' IoUs and the counts.

    Raises:
        ValueError: a gold box has no area, or a box is not as `iou_matrix` expects.
    """
    for box in gold:
        _, x1, y1, x2, y2 = _pixel_row(box)
        if x2 <= x1 or y2 <= y1:
            raise ValueError(f"gold box {box} has no area, expected x1 < x2 and y1 < y2: correct the record")
    ious = iou_matrix(gold, predicted)
    pairs = linear_sum_assignment(ious, maximize=True)
    return Match(len(gold), len(predicted), tuple(ious[pairs].tolist()))


def grounding_scores(matches: Sequence[Match], threshold: float = 0.5) -> dict[str, Any]:
    """Compute accuracy and mean IoU over questions that ask for boxes.

    Args:
        matches: one per question.
        threshold: the IoU from which on a pair counts as found, 0..1.

    Returns:
        `grounding_accuracy@<threshold>`: share of questions that are right, 0..1.
        `mean_iou`: total IoU of all pairs over the number of gold boxes and surplus predictions, both of which count as
        IoU 0 where they have no partner; None when there is no box at all.
        `questions`, `gold_boxes`, `predicted_boxes`: counts.
        `by_gold_boxes`: questions and accuracy of those with "none", "one" or "several" gold boxes; groups without a
        question are left out.

    Raises:
        ValueError: no matches.
    """
    places = sum(match.places for match in matches)
    groups = {name: [match for match in matches if match.group == name] for name in GROUPS}
    return {
        f"grounding_accuracy@{threshold}": _accuracy(matches, threshold),
        "mean_iou": sum(sum(match.ious) for match in matches) / places if places else None,
        "questions": len(matches),
        "gold_boxes": sum(match.gold for match in matches),
        "predicted_boxes": sum(match.predicted for match in matches),
        "by_gold_boxes": {
            name: {"questions": len(members), "accuracy": _accuracy(members, threshold)}
            for name, members in groups.items()
            if members
        },
    }


def _accuracy(matches: Sequence[Match], threshold: float) -> float:
    if not matches:
        raise ValueError("0 questions ask for boxes: there is no grounding accuracy to compute")
    return sum(match.is_right(threshold) for match in matches) / len(matches)
