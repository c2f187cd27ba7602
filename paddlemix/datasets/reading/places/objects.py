"""Names and boxes that a record lists beside its texts, which have `<ref-object>` and `<bbox>` in their places.

ms-swift 3: {"ref": ["sheep"], "bbox": [[90.9, 160.8, 135, 212.8]], "bbox_type": "real", "image_id": [0]}
ms-swift 2: [{"caption": "guy", "bbox": [138, 136, 235, 359], "bbox_type": "real", "image": 0}], or that as JSON text
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from paddlemix.conversation import Part, Reference
from paddlemix.datasets.reading.context import Reading
from paddlemix.datasets.reading.fields import checked_text, require
from paddlemix.datasets.reading.keys import check_keys, is_given
from paddlemix.datasets.reading.places.boxes import box_unit, place_of, shown_index
from paddlemix.datasets.reading.slots.filling import Listed
from paddlemix.datasets.reading.slots.placeholders import BOX, NAME
from paddlemix.datasets.reading.tools import parsed
from paddlemix.datasets.reading.turns import Said
from paddlemix.datasets.records.json_files import Record, describe

_EXPECTED = (
    'expected {"ref": ["sheep"], "bbox": [[x1, y1, x2, y2]]}, or '
    '[{"caption": "sheep", "bbox": [x1, y1, x2, y2], "bbox_type": "real", "image": 0}]'
)
_NAME_KEYS = ("caption", "ref", "label")


class Counts(NamedTuple):
    """How many images and videos a record shows."""

    images: int
    videos: int = 0


def objects_of(record: Record, turns: Sequence[Said], shown: Counts, reading: Reading) -> list[Listed]:
    """Read what `<ref-object>` and `<bbox>` stand for.

    Args:
        record: `objects` may be missing.
        turns: of the record, in which these placeholders are.
        shown: how many images and videos it shows.
        reading: of the record.

    Returns:
        What each of the two stands for; nothing where the record has no objects.

    Raises:
        RecordError: they are written otherwise, or a box is none.
    """
    value = record.get("objects")
    if isinstance(value, str) and value:
        value = parsed(value, "`objects`", reading)
    if not is_given(value):
        return []
    if isinstance(value, dict):
        return _by_columns(value, shown, reading)
    if not isinstance(value, list):
        raise reading.error(f"`objects` is {describe(value)}; {_EXPECTED}")
    return _by_rows(value, turns, shown, reading)


def _by_columns(objects: Record, shown: Counts, reading: Reading) -> list[Listed]:
    check_keys(objects, ("ref", "bbox", "bbox_type", "image_id"), reading, "objects")
    names = [
        checked_text(name, f"`ref[{number}]`", reading.source)
        for number, name in enumerate(_list(objects, "ref", reading))
    ]
    boxes, unit = _list(objects, "bbox", reading), box_unit(objects.get("bbox_type"), reading.source)
    shown_on = _list(objects, "image_id", reading) or [0] * len(boxes)
    if len(shown_on) != len(boxes):
        raise reading.error(f"`image_id` lists {len(shown_on)}, but `bbox` {len(boxes)}; expected one each")
    places = []
    for number, (box, image) in enumerate(zip(boxes, shown_on, strict=True)):
        index, video = _ground(image, "image_id", shown, reading)
        places.append(place_of(box, unit, f"`bbox[{number}]`", reading.source, image=index, video=video))
    return [
        Listed(NAME, "ref", [[Reference(name)] for name in names]),
        Listed(BOX, "bbox", [[place] for place in places]),
    ]


def _by_rows(objects: list[Any], turns: Sequence[Said], shown: Counts, reading: Reading) -> list[Listed]:
    """Read a list of objects; either kind of placeholder may be left out as long as the other stands for all."""
    rows = [_row(item, f"`objects[{number}]`", shown, reading) for number, item in enumerate(objects)]
    names = Listed(NAME, "objects", [[Reference(name)] for name, _ in rows])
    boxes = Listed(BOX, "objects", [places for _, places in rows])
    texts = [piece for said in turns for piece in said.pieces if isinstance(piece, str)]
    return [each for each in (names, boxes) if any(each.tag in text for text in texts)] or [boxes]


def _row(item: Any, name: str, shown: Counts, reading: Reading) -> tuple[str, Sequence[Part]]:
    if not isinstance(item, dict):
        raise reading.error(f"{name} is {describe(item)}; {_EXPECTED}")
    check_keys(item, (*_NAME_KEYS, "bbox", "bbox_type", "image"), reading, "objects[]")
    key = next((key for key in _NAME_KEYS if key in item), _NAME_KEYS[0])
    label = checked_text(item.get(key), f"`{key}` of {name}", reading.source)
    unit = box_unit(item.get("bbox_type"), reading.source)
    image, video = _ground(item.get("image") or 0, "image", shown, reading)
    boxes = require(item, "bbox", list, "a list of four numbers, or a list of such", reading.source, within=name)
    return label, [
        place_of(box, unit, f"`bbox` of {name}", reading.source, image=image, video=video) for box in many_boxes(boxes)
    ]


def _ground(value: object, key: str, shown: Counts, reading: Reading) -> tuple[int, int | None]:
    """Tell which image a box lies on; or, as the second, which video, where only videos are shown."""
    if shown.videos and not shown.images:
        return 0, shown_index(value, key, "video", shown.videos, reading.source)
    return shown_index(value, key, "image", shown.images, reading.source), None


def many_boxes(boxes: list[Any]) -> list[Any]:
    """Make a list of one box or several."""
    return boxes if boxes and isinstance(boxes[0], list) else [boxes]


def _list(objects: Record, key: str, reading: Reading) -> list[Any]:
    value = objects.get(key)
    if not isinstance(value, (list, type(None))):
        raise reading.error(f"`{key}` of `objects` is {describe(value)}; expected a list")
    return value or []
