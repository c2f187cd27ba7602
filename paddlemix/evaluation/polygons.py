"""The area that two polygons share.

A polygon is the sum of the triangles from its first corner to each of its sides, those that go round the other way
taken away. So two polygons share what their triangles share, however dented they are, if no side crosses another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

Corner = tuple[float, float]
Triangle = tuple[Corner, Corner, Corner]


def area(polygon: Sequence[Corner]) -> float:
    """Compute a polygon's area, whichever way its corners go round."""
    return abs(sum(_signed_area(triangle) for triangle in _triangles(polygon)))


def shared_area(one: Sequence[Corner], other: Sequence[Corner]) -> float:
    """Compute the area that two polygons share, whichever way their corners go round."""
    total = 0.0
    for first in _triangles(one):
        for second in _triangles(other):
            sign = 1 if _signed_area(first) * _signed_area(second) > 0 else -1
            total += sign * area(_clipped(first, _positive(second)))
    return abs(total)


def _triangles(polygon: Sequence[Corner]) -> Iterator[Triangle]:
    for second, third in pairwise(polygon[1:]):
        yield polygon[0], second, third


def _signed_area(triangle: Triangle) -> float:
    start, end, corner = triangle
    return _side(start, end, corner) / 2


def _positive(triangle: Triangle) -> Triangle:
    first, second, third = triangle
    return triangle if _signed_area(triangle) >= 0 else (first, third, second)


def _side(start: Corner, end: Corner, corner: Corner) -> float:
    """Tell on which side of a line a corner lies, by twice the area of the triangle of the three."""
    return (end[0] - start[0]) * (corner[1] - start[1]) - (end[1] - start[1]) * (corner[0] - start[0])


def _clipped(polygon: Sequence[Corner], triangle: Triangle) -> list[Corner]:
    """Cut a convex polygon off at the sides of a triangle.

    Source: Sutherland and Hodgman, "Reentrant Polygon Clipping", 1974.
    """
    kept = list(polygon)
    for start, end in zip(triangle, (*triangle[1:], triangle[0]), strict=True):
        kept = list(_on_one_side(kept, start, end))
    return kept


def _on_one_side(polygon: Sequence[Corner], start: Corner, end: Corner) -> Iterator[Corner]:
    for corner, following in zip(polygon, (*polygon[1:], *polygon[:1]), strict=True):
        here, there = _side(start, end, corner), _side(start, end, following)
        if here >= 0:
            yield corner
        if here * there < 0:
            share = here / (here - there)
            yield corner[0] + share * (following[0] - corner[0]), corner[1] + share * (following[1] - corner[1])
