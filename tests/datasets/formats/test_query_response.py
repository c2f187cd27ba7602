from __future__ import annotations

import json
from pathlib import Path

import pytest

from paddlemix.conversation import Box, Conversation, Image, Point, RecordId, Reference, Text, Turn, Video
from paddlemix.datasets.formats.query_response import parse
from paddlemix.datasets.reading.context import Reading

SOURCE = RecordId("train.jsonl", 3)
ROOT = Path("图")
A, B = Image(str(ROOT / "a.jpg")), Image(str(ROOT / "b.jpg"))
GUY = {"caption": "guy in red", "bbox": [138, 136, 235, 359], "bbox_type": "real", "image": 0}
GUY_BOX = Box(138, 136, 235, 359, "pixel")
ANSWER = Turn("assistant", (Text("a"),))


def asked(query: str, response: str = "a", **keys: object) -> dict[str, object]:
    return {"query": query, "response": response, **keys}


def found(query: str, response: str, *objects: object) -> dict[str, object]:
    return asked(query, response, images=["a.jpg"], objects=json.dumps(objects))


GOOD = {
    "an image": (asked("<image>问", images=["a.jpg"]), [Turn("user", (A, Text("问"))), ANSWER]),
    "images inside the text": (
        asked("e<image>e<image>e", images=["a.jpg", "b.jpg"], history=[]),
        [Turn("user", (Text("e"), A, Text("e"), B, Text("e"))), ANSWER],
    ),
    "history": (
        asked("E", history=[["q1", "r1"], ["q2", "r2"]], images=[], system="s"),
        [
            Turn("system", (Text("s"),)),
            Turn("user", (Text("q1"),)),
            Turn("assistant", (Text("r1"),)),
            Turn("user", (Text("q2"),)),
            Turn("assistant", (Text("r2"),)),
            Turn("user", (Text("E"),)),
            ANSWER,
        ],
    ),
    "an image in the history": (
        asked("and?", history=[["<image>q", "r"]], images=["a.jpg"], objects=None),
        [Turn("user", (A, Text("q"))), Turn("assistant", (Text("r"),)), Turn("user", (Text("and?"),)), ANSWER],
    ),
    "a name for a box": (
        found("Find <bbox>", "<ref-object>", GUY),
        [Turn("user", (A, Text("Find "), GUY_BOX)), Turn("assistant", (Reference("guy in red"),))],
    ),
    "several boxes of one object": (
        found("Find <ref-object>", "<bbox>", {**GUY, "bbox": [[138, 136, 235, 359], [1, 2, 3, 4]]}),
        [
            Turn("user", (A, Text("Find "), Reference("guy in red"))),
            Turn("assistant", (GUY_BOX, Box(1, 2, 3, 4, "pixel"))),
        ],
    ),
    "points": (
        found("Find <ref-object>", "<bbox>", {**GUY, "bbox": [[138, 136], [1, 2, 3, 4]]}),
        [
            Turn("user", (A, Text("Find "), Reference("guy in red"))),
            Turn("assistant", (Point(138, 136), Box(1, 2, 3, 4, "pixel"))),
        ],
    ),
    "only boxes, of objects in a list": (
        asked("<bbox>?", images=["a.jpg"], objects=[{**GUY, "bbox_type": "norm_1000", "image": 0}]),
        [Turn("user", (A, Box(138, 136, 235, 359, "thousandth"), Text("?"))), ANSWER],
    ),
    "a box on the second image, in fractions": (
        asked(
            "<image><image>",
            "<bbox>",
            images=["a.jpg", "b.jpg"],
            objects=[{**GUY, "bbox": [0, 0, 1, 0.5], "bbox_type": "norm_1", "image": 1}],
        ),
        [Turn("user", (A, B)), Turn("assistant", (Box(0, 0, 1, 0.5, "fraction", image=1),))],
    ),
    "Qwen2-VL's tags": (
        asked(
            "Find <|object_ref_start|>the man<|object_ref_end|>",
            "<|box_start|>(123,235),(324,546)<|box_end|>",
            images=["a.jpg"],
        ),
        [
            Turn("user", (A, Text("Find "), Reference("the man"))),
            Turn("assistant", (Box(123, 235, 324, 546, "thousandth"),)),
        ],
    ),
    "an image's path in the text": (
        asked("<img>a.jpg</img>how <img>http://h/b.jpg</img>far?"),
        [Turn("user", (A, Text("how "), Image("http://h/b.jpg"), Text("far?"))), ANSWER],
    ),
    "a video": (
        asked("<video>问", videos=["v.mp4"]),
        [Turn("user", (Video(str(ROOT / "v.mp4")), Text("问"))), ANSWER],
    ),
}

BAD = {
    "nothing": ({}, "key `query` is missing"),
    "no response": ({"query": "q"}, "key `response` is missing"),
    "a query that is no text": (asked(3), "`query` of the record is the number 3"),  # type: ignore[arg-type]
    "a blank response": (asked("q", " "), "turn 1 (assistant) is blank"),
    "a history that is no list": (asked("q", history="q"), '`history` is the text "q"; expected a list of'),
    "a history that is an object": (asked("q", history={"q": "a"}), '`history` is the object {"q":"a"}'),
    "half a pair": (asked("q", history=[["q"]]), '`history[0]` is the list ["q"]; expected ["query", "response"]'),
    "a pair of numbers": (asked("q", history=[[1, 2]]), "`history[0]` is the list [1,2]"),
    "a system text that is none": (asked("q", system=["s"]), '`system` of the record is the list ["s"]'),
    "messages too": (asked("q", messages=[{}]), "`messages` (turns) would be ignored; this format reads `query`,"),
    "a rejected response": (
        asked("q", rejected_response="b"),
        "`rejected_response` (a worse answer, for preference training) would",
    ),
    "an image too few": (asked("<image><image>", images=["a.jpg"]), "2 `<image>`, but `images` lists 1"),
    "an image that is no path": (asked("q", images=[None]), "`images[0]` is null"),
    "images in two places": (
        asked("<img>a.jpg</img>", images=["b.jpg"]),
        "the record lists 图/b.jpg, but its turns show other images: 图/a.jpg;",
    ),
    "a blank image": (asked("<img></img>"), 'the path in `<img></img>` is the text ""'),
    "objects that are no JSON": (
        asked("<bbox>", images=["a"], objects="[{]"),
        '`objects` is the text "[{]", which is no JSON',
    ),
    "objects of ms-swift 3": (
        asked("<bbox>", images=["a"], objects={"bbox": []}),
        "the turns have 1 `<bbox>`, but `bbox` lists 0; expected one each (a",
    ),
    "objects too deep to read": (asked("<bbox>", images=["a"], objects="[" * 5000), "which is no JSON"),
    "an object that is none": (
        found("<bbox>", "a", 3),
        '`objects[0]` is the number 3; expected {"ref": ["sheep"], "bbox":',
    ),
    "an object without a name": (found("<bbox>", "a", {"bbox": [1, 2, 3, 4]}), "`caption` of `objects[0]` is null"),
    "an object without a box": (found("<bbox>", "a", {"caption": "x"}), "key `bbox` is missing in `objects[0]`"),
    "an empty box": (found("<bbox>", "a", {**GUY, "bbox": []}), "`bbox` of `objects[0]` is the list []"),
    "boxes and numbers": (
        found("<bbox>", "a", {**GUY, "bbox": [[1, 2, 3, 4], 5]}),
        "`bbox` of `objects[0]` is the number 5",
    ),
    "a box upside down": (found("<bbox>", "a", {**GUY, "bbox": [1, 4, 3, 2]}), "which has no area"),
    "a box out of its unit": (found("<bbox>", "a", {**GUY, "bbox_type": "norm_1"}), "leaves 0..1"),
    "an unknown unit": (found("<bbox>", "a", {**GUY, "bbox_type": "norm"}), '`bbox_type` is the text "norm"'),
    "an image that is not there": (found("<bbox>", "a", {**GUY, "image": 1}), "`image` is the number 1"),
    "an image by its name": (found("<bbox>", "a", {**GUY, "image": "a.jpg"}), '`image` is the text "a.jpg"'),
    "an object that is not placed": (found("q", "a", GUY), "0 `<bbox>`, but `objects` lists 1"),
    "an object too few": (found("<bbox><bbox>", "a", GUY), "2 `<bbox>`, but `objects` lists 1"),
    "a name too few": (found("<bbox>", "<ref-object><ref-object>", GUY), "2 `<ref-object>`, but `objects` lists 1"),
}


@pytest.mark.parametrize(("record", "turns"), GOOD.values(), ids=GOOD)
def test_a_good_record_becomes_its_conversation(record, turns):
    assert parse(record, Reading(SOURCE, ROOT)) == Conversation(tuple(turns), SOURCE)


@pytest.mark.parametrize(("record", "problem"), BAD.values(), ids=BAD)
def test_a_bad_record_is_refused_with_what_is_wrong_in_it(record, problem, check_refused):
    check_refused(parse, record, problem)
