"""Phrases and the boxes or points they mean, as RefCOCO and sets like it have them.

{"image": "a.jpg", "phrase": "the red bus", "bbox": [138, 136, 235, 359]}
{"image": "a.jpg", "phrase": "a wheel", "bbox": [[12, 80, 20, 20], [70, 80, 20, 20]], "bbox_type": "norm_1000"}
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from paddlemix.conversation import Conversation, Part, RecordError, RecordId, Reference, Text, Turn
from paddlemix.datasets.formats.boxes import Corners, box_unit, place_of
from paddlemix.datasets.formats.format import (
    Format,
    build_conversation,
    image_at,
    refuse_unread,
    require,
    text_at,
)
from paddlemix.datasets.records.json_files import Record

PHRASE = "{phrase}"
DEFAULT_PROMPT = f"Find {PHRASE}."
# The names that sets of this kind have for the same things.
_IMAGE_KEYS = ("image", "img_path", "image_path", "file_name")
_PHRASE_KEYS = ("phrase", "expression", "sent", "ref")
_BOX_KEYS = ("bbox", "box")


def parse(
    record: Record, source: RecordId, root: Path, prompt: str = DEFAULT_PROMPT, *, corners: Corners
) -> Conversation:
    """Make a conversation of one record.

    Args:
        record: the record.
        source: where it comes from.
        root: the folder of relative image paths.
        prompt: what the user asks, `{phrase}` in the place of the phrase.
        corners: what the four numbers of a box are.

    Returns:
        The image and the prompt, answered by the phrase and its boxes.

    Raises:
        RecordError: the record has another shape.
    """
    refuse_unread(record, _IMAGE_KEYS, source)
    image = image_at(text_at(record, _only_key(record, _IMAGE_KEYS, source), source), root)
    phrase = Reference(text_at(record, _only_key(record, _PHRASE_KEYS, source), source))
    before, after = prompt.split(PHRASE, 1)
    question = [part for part in (Text(before), phrase, Text(after)) if part.text]
    answer = Turn("assistant", (phrase, *_boxes(record, corners, source)))
    return build_conversation([Turn("user", (image, *question)), answer], source)


def _format(corners: Corners) -> Format:
    return Format(partial(parse, corners=corners), takes_prompt=True, prompt_holds=PHRASE)


XYXY = _format("xyxy")
XYWH = _format("xywh")


def _only_key(record: Record, keys: tuple[str, ...], source: RecordId) -> str:
    """Find the one of several keys that the record has; the first where it has none, whose absence is then reported."""
    found = [key for key in keys if key in record]
    if len(found) > 1:
        raise RecordError(source, f"{', '.join(f'`{key}`' for key in found)} mean the same; expected one of them")
    return found[0] if found else keys[0]


def _boxes(record: Record, corners: Corners, source: RecordId) -> list[Part]:
    key, unit = _only_key(record, _BOX_KEYS, source), box_unit(record.get("bbox_type"), source)
    boxes = require(record, key, list, "a list of four numbers, or a list of such", source)
    many = boxes if boxes and isinstance(boxes[0], list) else [boxes]
    return [place_of(box, unit, f"`{key}` of the record", source, corners=corners) for box in many]
