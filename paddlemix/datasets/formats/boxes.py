"""Boxes and points given as numbers beside the text, in the units that ms-swift names."""

from __future__ import annotations

from typing import Literal

from paddlemix.conversation import Box, BoxUnit, Point, RecordError, RecordId
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
# No image that is opened has a side as long as the first: what lies beyond is no coordinate.
_LARGEST: dict[BoxUnit, int] = {"pixel": 1_000_000, "thousandth": 1000, "fraction": 1}


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
    value: object, unit: BoxUnit, name: str, source: RecordId, *, image: int = 0, corners: Corners = "xyxy"
) -> Box | Point:
    """Make a box of four numbers, or a point of two.

    Args:
        value: x1, y1, x2, y2; or x, y, width, height; or x, y of a point.
        unit: what they count.
        name: what to call it in errors.
        source: the record to name in errors.
        image: the image it lies on, an index into the conversation's images.
        corners: which of the two the numbers of a box are.

    Returns:
        The box, or the point.

    Raises:
        RecordError: it is something else, has no area, or leaves what the unit can count.
    """
    order = "[x1, y1, x2, y2]" if corners == "xyxy" else "[x, y, width, height]"
    if not isinstance(value, list) or len(value) not in (2, 4) or not all(_is_number(number) for number in value):
        raise RecordError(source, f"{name} is {describe(value)}; expected four numbers {order}, or a point's [x, y]")
    is_point = len(value) == 2
    x, y, *others = value
    numbers = value if is_point or corners == "xyxy" else [x, y, x + others[0], y + others[1]]
    largest = _LARGEST[unit]
    if not all(0 <= number <= largest for number in numbers):
        raise RecordError(
            source,
            f"{name} is {describe(value)}, which leaves 0..{largest}; expected {'[x, y]' if is_point else order} in "
            f"{unit}s",
        )
    if is_point:
        return Point(x, y, unit=unit, image=image)
    x1, y1, x2, y2 = numbers
    if not (x1 < x2 and y1 < y2):
        raise RecordError(source, f"{name} is {describe(value)}, which has no area; expected {order}")
    return Box(x1, y1, x2, y2, unit=unit, image=image)


def image_index(value: object, key: str, images: int, source: RecordId) -> int:
    """Read which image a box or a point lies on.

    Args:
        value: the index.
        key: where it stands, to name in errors.
        images: how many there are.
        source: the record to name in errors.

    Returns:
        The index.

    Raises:
        RecordError: there is no such image.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < images:
        raise RecordError(
            source, f"`{key}` is {describe(value)}; expected the index, from 0, of one of {images} images"
        )
    return value


def _is_number(value: object) -> bool:
    # JSON has whole numbers of any length, with which no sum of floats can be taken.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12
