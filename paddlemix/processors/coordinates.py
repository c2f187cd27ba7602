"""The units in which models count the places of boxes and points on an image; always whole numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from paddlemix.contract import Size
from paddlemix.conversation import Box, Point


class Units(Protocol):
    """What a convention counts in.

    Sizes are those of all original images of a conversation, or that of the one where numbers were read.
    """

    def corners(self, box: Box, sizes: Sequence[Size]) -> list[int]:
        """Count x1, y1, x2, y2 of a box; edges outside the image are clipped.

        Args:
            box: of a conversation.
            sizes: of its images.

        Returns:
            Four numbers.

        Raises:
            ValueError: the conversation does not show the image.
        """
        ...

    def place(self, point: Point, sizes: Sequence[Size]) -> list[int]:
        """Count x, y of a point; one outside the image is moved to its edge.

        Args:
            point: of a conversation.
            sizes: of its images.

        Returns:
            Two numbers.

        Raises:
            ValueError: the conversation does not show the image.
        """
        ...

    def in_pixels(self, numbers: Sequence[float], size: Size, image: int = 0) -> tuple[float, ...] | None:
        """Convert what a model wrote to pixels of the original image.

        Args:
            numbers: x and y in turns.
            size: of the image.
            image: its index among those of the conversation.

        Returns:
            As many numbers; None where the model cannot have meant a place.
        """
        ...


@dataclass(frozen=True)
class Thousandths:
    """Thousandths of the image's width and height, 0..999."""

    def corners(self, box: Box, sizes: Sequence[Size]) -> list[int]:
        """Count x1, y1, x2, y2; see `Units`."""
        return self._counted(box.in_fractions(*_size_of(box, sizes)))

    def place(self, point: Point, sizes: Sequence[Size]) -> list[int]:
        """Count x, y; see `Units`."""
        return self._counted(point.in_fractions(*_size_of(point, sizes)))

    def in_pixels(self, numbers: Sequence[float], size: Size, image: int = 0) -> tuple[float, ...] | None:
        """Convert to pixels; None where a number leaves 0..1000."""
        del image  # all are alike
        if not all(0 <= number <= 1000 for number in numbers):
            return None
        return tuple(number / 1000 * size[axis % 2] for axis, number in enumerate(numbers))

    def _counted(self, fractions: Sequence[float]) -> list[int]:
        return [min(max(round(1000 * value), 0), 999) for value in fractions]


@dataclass(frozen=True)
class SeenPixels:
    """Pixels of the image in the size in which the model sees it.

    Attributes:
        seen: tells that size for the original one.
        own: the same for images with settings of their own, by their index in the conversation.
    """

    seen: Callable[[Size], Size]
    own: Mapping[int, Callable[[Size], Size]] = field(default_factory=dict)

    def corners(self, box: Box, sizes: Sequence[Size]) -> list[int]:
        """Count x1, y1, x2, y2; a box keeps a pixel at least, so that it comes back as one."""
        size = _size_of(box, sizes)
        x1, y1, x2, y2 = box.in_fractions(*size)
        width, height = self._seen(box.image)(size)
        (left, right), (top, bottom) = _edges(x1, x2, width), _edges(y1, y2, height)
        return [left, top, right, bottom]

    def place(self, point: Point, sizes: Sequence[Size]) -> list[int]:
        """Count x, y; see `Units`."""
        size = _size_of(point, sizes)
        seen = self._seen(point.image)(size)
        return [_clipped(value, side) for value, side in zip(point.in_fractions(*size), seen, strict=True)]

    def in_pixels(self, numbers: Sequence[float], size: Size, image: int = 0) -> tuple[float, ...] | None:
        """Convert to pixels of the original image; what lies outside is clipped."""
        seen = self._seen(image)(size)
        return tuple(
            min(max(number / seen[axis % 2], 0.0), 1.0) * size[axis % 2] for axis, number in enumerate(numbers)
        )

    def _seen(self, image: int) -> Callable[[Size], Size]:
        return self.own.get(image, self.seen)


def _size_of(placed: Box | Point, sizes: Sequence[Size]) -> Size:
    """Find the size of the image that something lies on; refuse what lies on none."""
    if not 0 <= placed.image < len(sizes):
        name = "point" if isinstance(placed, Point) else "box"
        raise ValueError(f"a {name} lies on image {placed.image}, but there are {len(sizes)} images.")
    return sizes[placed.image]


def _clipped(fraction: float, side: int) -> int:
    return min(max(round(fraction * side), 0), side)


def _edges(low: float, high: float, side: int) -> tuple[int, int]:
    """Round two edges, fractions of a side, to whole numbers inside it, a box's apart."""
    first, last = _clipped(low, side), _clipped(high, side)
    if first == last:
        first = min(max(math.floor(low * side), 0), side - 1)
        last = first + 1
    return first, last
