"""Boxes, points and quads given as numbers beside the text, in the units that ms-swift names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from paddlemix.conversation import Box, BoxUnit, Placed, Point, Quad, RecordError, RecordId, goes_round
from paddlemix.datasets.records.json_files import describe

Corners = Literal["xyxy", "xywh"]

# ms-swift 2 and 3 spell the same units differently; one is taken for the other.
_UNITS: dict[str, BoxUnit] = {
    "real": "pixel",
    "norm_1000": "thousandth",
    "norm1000": "thousandth",
    "norm_1": "fraction",
    "norm1": "fraction",
}
# What the unit itself ends at. Where pixels end, the image says.
_LARGEST: dict[BoxUnit, float] = {"thousandth": 1000, "fraction": 1}
# Labelling tools round, and sums of fractions are not exact.
_ROUNDING = 1 / 1000


def box_unit(value: object, source: RecordId) -> BoxUnit:
    """Read a `bbox_type`.

    Args:
        value: its value; None means pixels.
        source: the record to name in errors.

    Returns:
        The unit.

    Raises:
        RecordError: there is no such unit.
    """
    if value is None:
        return "pixel"
    if not isinstance(value, str) or value not in _UNITS:
        raise RecordError(source, f"`bbox_type` is {describe(value)}; expected one of {', '.join(_UNITS)}")
    return _UNITS[value]


def place_of(
    value: object,
    unit: BoxUnit,
    name: str,
    source: RecordId,
    *,
    image: int = 0,
    video: int | None = None,
    corners: Corners = "xyxy",
) -> Placed:
    """Make a box of four numbers, a point of two, or a quad of eight.

    Whether it lies on the image is not asked here, where the image's size is unknown.

    Args:
        value: x1, y1, x2, y2; or x, y, width, height; or x, y of a point; or x1, y1, ... x4, y4, or four such pairs.
        unit: what they count.
        name: what to call it in errors.
        source: the record to name in errors.
        image: the image it lies on, an index into the conversation's images.
        video: the video it lies on in place of an image, an index into the conversation's videos.
        corners: which of the two the numbers of a box are.

    Returns:
        The box, the point or the quad.

    Raises:
        RecordError: it is something else, has no area, is beyond what the unit counts, or counts in another unit.
    """
    order = "[x1, y1, x2, y2]" if corners == "xyxy" else "[x, y, width, height]"
    numbers = _numbers(value)
    if numbers is None:
        raise RecordError(
            source,
            f"{name} is {describe(value)}; expected four numbers {order}, a point's [x, y] or a quad's eight, "
            "[x1, y1, ... x4, y4]",
        )
    what = f"{name} is {describe(value)}"
    if unit != "fraction" and look_like_fractions(numbers):
        raise RecordError(
            source, f"{what}, which look like fractions of the sides, not {unit}s; set `bbox_type` to norm1"
        )
    if corners == "xywh" and len(numbers) == 4:
        x, y, width, height = numbers
        numbers = [x, y, x + width, y + height]
    largest = _LARGEST.get(unit, math.inf)
    if any(number >= largest * (1 + _ROUNDING) for number in numbers):
        raise RecordError(
            source, f"{what}, which leaves 0..{largest:g}; expected {unit}s, or a `bbox_type` that names another unit"
        )
    return as_place(numbers, unit, what, source, image=image, video=video, order=order)


def as_place(
    numbers: Sequence[float],
    unit: BoxUnit,
    what: str,
    source: RecordId,
    *,
    image: int = 0,
    video: int | None = None,
    order: str = "x1 < x2 and y1 < y2",
) -> Placed:
    """Make a point, a box or a quad of numbers that are known to be in a unit.

    Args:
        numbers: two, four or eight: x and y of each corner in turn.
        unit: what they count.
        what: the numbers as the record has them, such as "`bbox` is the list [1, 2, 1, 4]".
        source: the record to name in errors.
        image: the image it lies on, an index into the conversation's images.
        video: the video it lies on in place of an image, an index into the conversation's videos.
        order: what the four numbers of a box are expected to be.

    Returns:
        What the numbers are.

    Raises:
        RecordError: a box or a quad has no area.
    """
    if len(numbers) == 2:
        x, y = numbers
        return Point(x, y, unit=unit, image=image, video=video)
    if len(numbers) == 8:
        if not goes_round(numbers):
            raise RecordError(
                source, f"{what}, which has no area or crosses itself; expected four corners in the order round it"
            )
        return Quad(tuple(numbers), unit=unit, image=image, video=video)
    x1, y1, x2, y2 = numbers
    if not (x1 < x2 and y1 < y2):
        raise RecordError(source, f"{what}, which has no area; expected {order}")
    return Box(x1, y1, x2, y2, unit=unit, image=image, video=video)


def look_like_fractions(numbers: Sequence[float]) -> bool:
    """Tell whether numbers that should count pixels or thousandths can only be fractions of an image's sides."""
    return all(0 <= number <= 1 for number in numbers) and any(number % 1 for number in numbers)


def shown_index(value: object, key: str, kind: str, count: int, source: RecordId) -> int:
    """Read which image or video a box or a point lies on.

    Args:
        value: the index.
        key: where it stands, to name in errors.
        kind: "image" or "video".
        count: how many there are.
        source: the record to name in errors.

    Returns:
        The index.

    Raises:
        RecordError: there is no such image or video.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise RecordError(
            source, f"`{key}` is {describe(value)}; expected the index, from 0, of one of {count} {kind}s"
        )
    return value


def _numbers(value: object) -> list[float] | None:
    """Return the two, four or eight numbers of a list, or of four pairs; None of anything else."""
    if not isinstance(value, list):
        return None
    if len(value) == 4 and all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        value = [number for pair in value for number in pair]
    return value if len(value) in (2, 4, 8) and all(_is_number(number) for number in value) else None


def _is_number(value: object) -> bool:
    # JSON has whole numbers of any length, with which no sum of floats can be taken.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12
