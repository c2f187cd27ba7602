"""ms-swift 3: messages, whose `<image>`, `<video>`, `<ref-object>` and `<bbox>` stand for lists of the record.

{"messages": [{"role": "user", "content": "<image>Find <ref-object>"}, {"role": "assistant", "content": "<bbox>"}],
 "images": ["a.jpg"],
 "objects": {"ref": ["sheep"], "bbox": [[90.9, 160.8, 135, 212.8]], "bbox_type": "real", "image_id": [0]}}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paddlemix.conversation import Conversation, Placed, RecordError, RecordId, Reference
from paddlemix.datasets.formats.boxes import box_unit, image_index, place_of
from paddlemix.datasets.formats.format import Format, checked_text, refuse_unread
from paddlemix.datasets.formats.placeholders import Listed, converse, listed_media
from paddlemix.datasets.formats.turns import ROLE_CONTENT, read_turns, with_system
from paddlemix.datasets.records.json_files import Record, describe


def parse(record: Record, source: RecordId, root: Path) -> Conversation:
    """Make a conversation of one record.

    Args:
        record: the record.
        source: where it comes from.
        root: the folder of relative image paths.

    Returns:
        The turns with their images, videos, references, boxes and points; images and videos without any placeholder
        come before the first question.

    Raises:
        RecordError: the record has another shape.
    """
    refuse_unread(record, ("messages", "images", "videos", "objects", "system"), source)
    turns = with_system(record, read_turns(record, "messages", [ROLE_CONTENT], source), source)
    images, videos = listed_media(record, "images", "videos", source, root)
    return converse(turns, [images, videos], source, _objects(record, len(images.parts), source))


FORMAT = Format(parse)


def _objects(record: Record, images: int, source: RecordId) -> list[Listed]:
    objects = record.get("objects")
    if not objects:
        return []
    if not isinstance(objects, dict):
        raise RecordError(
            source, f'`objects` is {describe(objects)}; expected {{"ref": [...], "bbox": [...]}}, or name `ms_swift_2`'
        )
    names = [
        checked_text(name, f"`ref[{number}]`", source) for number, name in enumerate(_list(objects, "ref", source))
    ]
    boxes = _boxes(objects, images, source)
    return [
        Listed("<ref-object>", "ref", [[Reference(name)] for name in names]),
        Listed("<bbox>", "bbox", [[box] for box in boxes]),
    ]


def _boxes(objects: Record, images: int, source: RecordId) -> list[Placed]:
    boxes, unit = _list(objects, "bbox", source), box_unit(objects.get("bbox_type"), source)
    shown_on = _list(objects, "image_id", source) or [0] * len(boxes)
    if len(shown_on) != len(boxes):
        raise RecordError(source, f"`image_id` lists {len(shown_on)}, but `bbox` {len(boxes)}; expected one each")
    return [
        place_of(box, unit, f"`bbox[{number}]`", source, image=image_index(image, "image_id", images, source))
        for number, (box, image) in enumerate(zip(boxes, shown_on, strict=True))
    ]


def _list(objects: Record, key: str, source: RecordId) -> list[Any]:
    value = objects.get(key)
    if not isinstance(value, (list, type(None))):
        raise RecordError(source, f"`{key}` of `objects` is {describe(value)}; expected a list")
    return value or []
