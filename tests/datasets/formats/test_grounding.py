from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from paddlemix.conversation import Box, Conversation, Image, Point, Quad, RecordId, Reference, Text, Turn
from paddlemix.datasets.formats.grounding import XYWH, XYXY, parse
from paddlemix.datasets.reading.context import Reading

SOURCE = RecordId("train.jsonl", 3)
ROOT = Path("图")
IMAGE = Image(str(ROOT / "a.jpg"))
RECORD = {"image": "a.jpg", "phrase": "红色巴士", "bbox": [10, 20, 30, 40]}

GOOD = {
    "corners": (RECORD, XYXY, [Box(10, 20, 30, 40)]),
    "corner and size": (RECORD, XYWH, [Box(10, 20, 40, 60)]),
    "fractions": ({**RECORD, "bbox": [0.5, 0, 0.5, 1], "bbox_type": "norm1"}, XYWH, [Box(0.5, 0, 1, 1, "fraction")]),
    "several boxes": (
        {**RECORD, "bbox": [[1, 2, 3, 4], [5, 6, 7, 8]], "bbox_type": "norm_1000"},
        XYXY,
        [Box(1, 2, 3, 4, "thousandth"), Box(5, 6, 7, 8, "thousandth")],
    ),
    "other names": ({"img_path": "a.jpg", "expression": "红色巴士", "box": [1, 2, 3, 4]}, XYXY, [Box(1, 2, 3, 4)]),
    "points": (
        {**RECORD, "bbox": [[1, 2], [5, 6]], "bbox_type": "norm_1000"},
        XYWH,
        [Point(1, 2, "thousandth"), Point(5, 6, "thousandth")],
    ),
    "pixels outside, to be checked where sizes are known": (
        {**RECORD, "bbox": [-1, 2, 9000, 4]},
        XYXY,
        [Box(-1, 2, 9000, 4)],
    ),
    "a size that reaches the edge but for rounding": (
        {**RECORD, "bbox": [0.3, 0.1, 0.7, 0.9000000000000001], "bbox_type": "norm1"},
        XYWH,
        [Box(0.3, 0.1, 1, 1.0000000000000002, "fraction")],
    ),
    "a quad": (
        {**RECORD, "bbox": [1, 1, 9, 2, 8, 9, 0, 7], "bbox_type": "norm_1000"},
        XYWH,
        [Quad((1, 1, 9, 2, 8, 9, 0, 7), "thousandth")],
    ),
    "a quad of pairs": ({**RECORD, "bbox": [[[1, 1], [9, 2], [8, 9], [0, 7]]]}, XYXY, [Quad((1, 1, 9, 2, 8, 9, 0, 7))]),
    "RefCOCO's": ({"file_name": "a.jpg", "sent": "红色巴士", "bbox": [1, 2, 3, 4], "id": 1}, XYWH, [Box(1, 2, 4, 6)]),
}

BAD = {
    "nothing": ({}, "key `phrase` is missing in the record, which has no key at all;"),
    "no phrase": ({"image": "a.jpg"}, "key `phrase` is missing in the record, which has `image`"),
    "a blank phrase": ({**RECORD, "phrase": " "}, '`phrase` of the record is the text " "'),
    "no box": ({"image": "a.jpg", "phrase": "p"}, "key `bbox` is missing"),
    "a box that is a text": ({**RECORD, "bbox": "1,2,3,4"}, '`bbox` of the record is the text "1,2,3,4"'),
    "no numbers": ({**RECORD, "bbox": []}, "`bbox` of the record is the list []; expected four numbers"),
    "five numbers": ({**RECORD, "bbox": [1, 2, 3, 4, 5]}, "expected four numbers [x1, y1, x2, y2]"),
    "a number that is none": ({**RECORD, "bbox": [1, 2, 3, None]}, "expected four numbers"),
    "a box in a box": ({**RECORD, "bbox": [[[1, 2, 3, 4]]]}, "expected four numbers"),
    "no area": ({**RECORD, "bbox": [10, 20, 10, 40]}, "which has no area"),
    "fractions without a unit": ({**RECORD, "bbox": [0.1, 0.2, 0.5, 1]}, "set `bbox_type` to norm1"),
    "fractions as thousandths": (
        {**RECORD, "bbox": [0, 0.2, 1, 1], "bbox_type": "norm_1000"},
        "which look like fractions of the sides, not thousandths; set `bbox_type` to norm1",
    ),
    "a crossing quad": ({**RECORD, "bbox": [1, 1, 9, 1, 1, 9, 9, 9]}, "has no area or crosses itself"),
    "too many thousandths": (
        {**RECORD, "bbox": [1, 2, 3, 1001], "bbox_type": "norm_1000"},
        "leaves 0..1000; expected thousandths, or a `bbox_type`",
    ),
    "an unknown unit": ({**RECORD, "bbox_type": "pixel"}, '`bbox_type` is the text "pixel"; expected one of real'),
    "two names for the image": ({**RECORD, "file_name": "b.jpg"}, "`image`, `file_name` mean the same; expected one"),
    "two names for the box": ({**RECORD, "box": [1, 2, 3, 4]}, "`bbox`, `box` mean the same"),
    "an image that is a number": (
        {**RECORD, "image": 7},
        "`image` is the number 7; expected a text that is not blank",
    ),
    "turns too": (
        {**RECORD, "conversations": [["q", "a"]]},
        "`conversations` (turns) would be ignored; this format reads `images`,",
    ),
}


@pytest.mark.parametrize(("record", "record_format", "boxes"), GOOD.values(), ids=GOOD)
def test_the_phrase_is_asked_for_and_answered_with_its_boxes(record, record_format, boxes):
    phrase = Reference("红色巴士")
    assert record_format.parse(record, Reading(SOURCE, ROOT)) == Conversation(
        (
            Turn("user", (IMAGE, Text("Find "), phrase, Text("."))),
            Turn("assistant", (phrase, *boxes)),
        ),
        SOURCE,
    )


@pytest.mark.parametrize(("record", "problem"), BAD.values(), ids=BAD)
def test_a_bad_record_is_refused_with_what_is_wrong_in_it(record, problem, check_refused):
    check_refused(partial(parse, corners="xyxy"), record, problem)


@pytest.mark.parametrize("box", [[1, 2, 0, 4], [1, 2, 3, -4]])
def test_a_size_that_makes_no_box_is_refused(box, check_refused):
    check_refused(XYWH.parse, {**RECORD, "bbox": box}, "expected [x, y, width, height]")


def test_the_prompt_of_the_set_says_where_the_phrase_goes():
    conversation = XYXY.parse(RECORD, Reading(SOURCE, ROOT), prompt="框出{phrase}")
    assert conversation.turns[0].parts == (IMAGE, Text("框出"), Reference("红色巴士"))
