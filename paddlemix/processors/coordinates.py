"""The units in which models count the places of boxes, points and quads; always whole numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from paddlemix.contract import PlaceSizes, ShownSize, Size
from paddlemix.conversation import Box, Placed, Quad, goes_round


class Units(Protocol):
    """What a convention counts in."""

    def count(self, placed: Placed, size: ShownSize) -> list[int]:
        """Count the corners of a box, a point or a quad; what lies outside the image is moved to its edge.

        A box or a quad keeps an area, however small it is.

        Args:
            placed: of a conversation.
            size: of what it lies on.

        Returns:
            x and y of each corner in turn: two, four or eight numbers.
        """
        ...

    def in_pixels(self, numbers: Sequence[float], size: ShownSize) -> tuple[float, ...] | None:
        """Convert what a model wrote to pixels of the original image.

        Args:
            numbers: x and y in turn.
            size: of the image.

        Returns:
            As many numbers; None where the model cannot have meant a place.
        """
        ...


@dataclass(frozen=True)
class Thousandths:
    """Thousandths of the image's width and height, 0..999."""

    def count(self, placed: Placed, size: ShownSize) -> list[int]:
        """Count the corners; see `Units`."""
        return _counted(placed, size.original, scale=(1000, 1000), largest=(999, 999))

    def in_pixels(self, numbers: Sequence[float], size: ShownSize) -> tuple[float, ...] | None:
        """Convert to pixels; None where a number leaves 0..1000."""
        if not all(0 <= number <= 1000 for number in numbers):
            return None
        return tuple(number / 1000 * size.original[axis % 2] for axis, number in enumerate(numbers))


@dataclass(frozen=True)
class SeenPixels:
    """Pixels of the image in the size in which the model sees it.

    Attributes:
        seen: tells that size for the original one, where nothing says more of the very image.
    """

    seen: Callable[[Size], Size]

    def count(self, placed: Placed, size: ShownSize) -> list[int]:
        """Count the corners; see `Units`."""
        seen = self._seen(size)
        return _counted(placed, size.original, scale=seen, largest=seen)

    def in_pixels(self, numbers: Sequence[float], size: ShownSize) -> tuple[float, ...] | None:
        """Convert to pixels of the original image; what lies outside is clipped."""
        seen, original = self._seen(size), size.original
        return tuple(
            min(max(number / seen[axis % 2], 0.0), 1.0) * original[axis % 2] for axis, number in enumerate(numbers)
        )

    def _seen(self, size: ShownSize) -> Size:
        return size.seen or self.seen(size.original)


def size_under(placed: Placed, sizes: PlaceSizes) -> ShownSize:
    """Find the size of what a box, a point or a quad lies on.

    Args:
        placed: of a conversation.
        sizes: of all that the conversation shows.

    Returns:
        The size.

    Raises:
        ValueError: the conversation does not show it.
    """
    name, index, shown = "image", placed.image, sizes.images
    if placed.video is not None:
        name, index, shown = "video", placed.video, sizes.videos
    if not 0 <= index < len(shown):
        raise ValueError(f"a {placed.kind} lies on {name} {index}, but there are {len(shown)} {name}s.")
    return shown[index]


def _counted(placed: Placed, size: Size, scale: Size, largest: Size) -> list[int]:
    """Count corners in `scale` to a side, from 0 to `largest`."""
    fractions = placed.in_fractions(*size)
    axes = [[scale[axis] * value for value in fractions[axis::2]] for axis in (0, 1)]
    counted = [_rounded(values, last) for values, last in zip(axes, largest, strict=True)]
    if isinstance(placed, Box):
        counted = [_edges(whole, values[0], last) for whole, values, last in zip(counted, axes, largest, strict=True)]
    elif isinstance(placed, Quad) and not goes_round(_in_turn(counted)):
        counted = [_rounded_apart(values, last) for values, last in zip(axes, largest, strict=True)]
    return _in_turn(counted)


def _in_turn(axes: Sequence[Sequence[int]]) -> list[int]:
    return [number for corner in zip(*axes, strict=True) for number in corner]


def _rounded(values: Sequence[float], last: int) -> list[int]:
    return [min(max(round(value), 0), last) for value in values]


def _edges(whole: list[int], low: float, last: int) -> list[int]:
    """Take a box's rounded edges apart where they are one; `low` is the first of them, not rounded."""
    if whole[0] != whole[1]:
        return whole
    first = min(max(math.floor(low), 0), last - 1)
    return [first, first + 1]


def _rounded_apart(values: Sequence[float], last: int) -> list[int]:
    """Round the places of a quad's corners along a side away from their middle, so that they are not all the same."""
    middle = (min(values) + max(values)) / 2
    return [
        min(max(math.floor(value), 0), last - 1) if value < middle else min(max(math.ceil(value), 1), last)
        for value in values
    ]
