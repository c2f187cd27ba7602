"""ms-swift 2: a query and its response, and those before. Also with the tags of Qwen-VL and of Qwen2-VL in its texts.

{"query": "<image>Which colour?", "response": "Red.", "history": [["What is this?", "A bus."]], "images": ["a.jpg"]}
{"query": "Find <ref-object>", "response": "<bbox>", "images": ["a.jpg"],
 "objects":"[{\\"caption\\": \\"guy\\",\\"bbox\\": [138, 136, 235, 359], \\"bbox_type\\": \\"real\\", \\"image\\": 0}]"}
{"query": "Find <|object_ref_start|>the man<|object_ref_end|>", "images": ["a.jpg"],
 "response": "<|box_start|>(123,235),(324,546)<|box_end|>"}
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson

from paddlemix.conversation import Conversation, Placed, RecordError, RecordId, Reference
from paddlemix.datasets.formats.boxes import box_unit, image_index, place_of
from paddlemix.datasets.formats.format import Format, checked_text, image_at, refuse_unread, require
from paddlemix.datasets.formats.placeholders import Listed, converse, listed_media
from paddlemix.datasets.formats.turns import Said, with_system
from paddlemix.datasets.records.json_files import Record, describe

_INLINE_IMAGE = re.compile(r"<img>([^<\n]*)</img>")
_OBJECTS = '[{"caption": ..., "bbox": [x1, y1, x2, y2], "bbox_type": "real", "image": 0}]'


def parse(record: Record, source: RecordId, root: Path) -> Conversation:
    """Make a conversation of one record.

    The first `<ref-object>` of the record stands for the caption of the first object, the first `<bbox>` for its boxes,
    and so on.

    Args:
        record: the record.
        source: where it comes from.
        root: the folder of relative image paths.

    Returns:
        The history, the query and the response, with their images, videos, references and boxes; images and videos
        without any placeholder come before the first question.

    Raises:
        RecordError: the record has another shape.
    """
    refuse_unread(record, ("query", "response", "history", "system", "images", "videos", "objects"), source)
    images, videos = listed_media(record, "images", "videos", source, root)
    turns, images = _with_inline_images(_turns(record, source), images, source, root)
    objects = _Objects(record, len(images.parts), source).listed(turns)
    return converse(with_system(record, turns, source), [images, videos], source, objects)


FORMAT = Format(parse)


def _turns(record: Record, source: RecordId) -> Said:
    turns: Said = []
    history = record.get("history") or []
    if not isinstance(history, list):
        raise RecordError(source, f'`history` is {describe(history)}; expected a list of ["query", "response"]')
    for number, pair in enumerate(history):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise RecordError(source, f'`history[{number}]` is {describe(pair)}; expected ["query", "response"]')
        turns += [("user", pair[0]), ("assistant", pair[1])]
    query, response = (require(record, key, str, "a text", source) for key in ("query", "response"))
    return [*turns, ("user", query), ("assistant", response)]


def _with_inline_images(turns: Said, images: Listed, source: RecordId, root: Path) -> tuple[Said, Listed]:
    """Write `<image>` for every `<img>path</img>` in a text; where there is one, these are the record's images."""
    paths = [path for _, text in turns for path in _INLINE_IMAGE.findall(text)]
    turns = [(role, _INLINE_IMAGE.sub(images.tag, text) if paths else text) for role, text in turns]
    if any("<img>" in text or "</img>" in text for _, text in turns):
        raise RecordError(source, "an `<img>` or `</img>` has no partner; expected `<img>path</img>` in one line")
    if not paths:
        return turns, images
    if images.parts:
        raise RecordError(source, "images stand in `images` and as `<img>path</img>`; expected only one of the two")
    inline = [[image_at(checked_text(path, "the path in `<img></img>`", source), root)] for path in paths]
    return turns, Listed(images.tag, "<img></img>", inline)


class _Objects:
    """The objects of a record.

    Args:
        record: the record.
        images: how many it shows.
        source: the record to name in errors.
    """

    def __init__(self, record: Record, images: int, source: RecordId) -> None:
        self._images = images
        self._source = source
        self._objects = [self._checked(item, number) for number, item in enumerate(self._items(record.get("objects")))]

    def listed(self, turns: Said) -> list[Listed]:
        """List what `<ref-object>` and `<bbox>` stand for; each may be left out as long as the other stands for all."""
        if not self._objects:
            return []
        names = Listed("<ref-object>", "objects", [[Reference(caption)] for caption, _ in self._objects])
        boxes = Listed("<bbox>", "objects", [boxes for _, boxes in self._objects])
        used = [each for each in (names, boxes) if any(each.tag in text for _, text in turns)]
        return used or [boxes]

    def _items(self, value: Any) -> list[Any]:
        if isinstance(value, str) and value:
            try:
                value = orjson.loads(value)
            except orjson.JSONDecodeError as error:
                raise RecordError(
                    self._source, f"`objects` is {describe(value)}, which is no JSON ({error}); expected {_OBJECTS}"
                ) from error
        if value and not isinstance(value, list):
            raise RecordError(self._source, f"`objects` is {describe(value)}; expected {_OBJECTS}")
        return value or []

    def _checked(self, item: Any, number: int) -> tuple[str, list[Placed]]:
        name = f"`objects[{number}]`"
        if not isinstance(item, dict):
            raise RecordError(self._source, f"{name} is {describe(item)}; expected an object, as in {_OBJECTS}")
        caption = checked_text(item.get("caption"), f"`caption` of {name}", self._source)
        unit = box_unit(item.get("bbox_type"), self._source)
        image = image_index(item.get("image", 0), "image", self._images, self._source)
        boxes = require(item, "bbox", list, "a list of four numbers, or a list of such", self._source, within=name)
        many = boxes if boxes and isinstance(boxes[0], list) else [boxes]
        return caption, [place_of(box, unit, f"`bbox` of {name}", self._source, image=image) for box in many]
