"""Phrases and the boxes or points they mean, as RefCOCO and sets like it have them; COCO's own tables among them.

{"image": "a.jpg", "phrase": "the red bus", "bbox": [138, 136, 235, 359]}
{"image": "a.jpg", "phrase": "a wheel", "bbox": [[12, 80, 20, 20], [70, 80, 20, 20]], "bbox_type": "norm_1000"}
"""

from __future__ import annotations

from functools import partial

from paddlemix.conversation import Conversation, Part, Reference, Text, Turn
from paddlemix.datasets.formats.coco_instances import expand
from paddlemix.datasets.formats.format import Format
from paddlemix.datasets.reading.checks import build_conversation
from paddlemix.datasets.reading.context import Reading
from paddlemix.datasets.reading.fields import require, text_at
from paddlemix.datasets.reading.keys import IMAGE_KEYS, check_keys, keys, only_key
from paddlemix.datasets.reading.places.boxes import Corners, box_unit, place_of
from paddlemix.datasets.reading.places.objects import many_boxes
from paddlemix.datasets.reading.question import shown_images
from paddlemix.datasets.records.json_files import Record

PHRASE = "{phrase}"
DEFAULT_PROMPT = f"Find {PHRASE}."
# The names that sets of this kind have for the same things.
_PHRASE_KEYS = ("phrase", "expression", "sent", "ref")
_BOX_KEYS = ("bbox", "box")
_READ = keys(*IMAGE_KEYS, *_PHRASE_KEYS, *_BOX_KEYS, "bbox_type")


def parse(record: Record, reading: Reading, prompt: str = DEFAULT_PROMPT, *, corners: Corners) -> Conversation:
    """Make a conversation of one record.

    Args:
        record: the record.
        reading: of it.
        prompt: what the user asks, `{phrase}` in the place of the phrase.
        corners: what the four numbers of a box are.

    Returns:
        The image and the prompt, answered by the phrase and its boxes.

    Raises:
        RecordError: the record has another shape.
    """
    check_keys(record, _READ, reading)
    key = only_key(record, _PHRASE_KEYS, reading) or _PHRASE_KEYS[0]
    phrase = Reference(text_at(record, key, reading.source))
    before, after = prompt.split(PHRASE, 1)
    question = [part for part in (Text(before), phrase, Text(after)) if part.text]
    answer = Turn("assistant", (phrase, *_boxes(record, corners, reading)))
    return build_conversation([Turn("user", (*shown_images(record, reading), *question)), answer], reading)


XYXY = Format(partial(parse, corners="xyxy"), takes_prompt=True, prompt_holds=PHRASE)
XYWH = Format(partial(parse, corners="xywh"), expand=expand, takes_prompt=True, prompt_holds=PHRASE)


def _boxes(record: Record, corners: Corners, reading: Reading) -> list[Part]:
    key = only_key(record, _BOX_KEYS, reading) or _BOX_KEYS[0]
    unit = box_unit(record.get("bbox_type"), reading.source)
    boxes = require(record, key, list, "a list of four numbers, or a list of such", reading.source)
    name = f"`{key}` of the record"
    return [place_of(box, unit, name, reading.source, corners=corners) for box in many_boxes(boxes)]
