from __future__ import annotations

from pathlib import Path

import pytest

from paddlemix.conversation import Box, Conversation, Image, Point, RecordId, Reference, Text, Turn, Video
from paddlemix.datasets.formats.messages import parse
from paddlemix.datasets.reading.context import Reading

SOURCE = RecordId("train.jsonl", 3)
ROOT = Path("图")
A, B = Image(str(ROOT / "a.jpg")), Image(str(ROOT / "b.jpg"))
BOX = [90.9, 160.8, 135, 212.8]


def messages(question: str = "<image>q", answer: str = "a") -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def grounded(question: str, answer: str, *images: str, **objects: object) -> dict[str, object]:
    return {"messages": messages(question, answer), "images": list(images or ["a.jpg"]), "objects": objects}


GOOD = {
    "a box in pixels": (
        grounded("<image>Find <ref-object>", "<bbox>", ref=["羊"], bbox=[BOX]),
        [
            Turn("user", (A, Text("Find "), Reference("羊"))),
            Turn("assistant", (Box(90.9, 160.8, 135, 212.8, "pixel"),)),
        ],
    ),
    "names and boxes, each in their order": (
        grounded("<image>", "<ref-object><bbox> and <ref-object><bbox>", ref=["x", "y"], bbox=[[0, 0, 1, 1], BOX]),
        [
            Turn("user", (A,)),
            Turn(
                "assistant",
                (Reference("x"), Box(0, 0, 1, 1), Text(" and "), Reference("y"), Box(90.9, 160.8, 135, 212.8)),
            ),
        ],
    ),
    "fractions": (
        grounded("<image>", "<bbox>", bbox=[[0, 0.5, 1, 1]], bbox_type="norm1"),
        [Turn("user", (A,)), Turn("assistant", (Box(0, 0.5, 1, 1, "fraction"),))],
    ),
    "thousandths": (
        grounded("<image>", "<bbox>", bbox=[[0, 5, 10, 1000]], bbox_type="norm_1000"),
        [Turn("user", (A,)), Turn("assistant", (Box(0, 5, 10, 1000, "thousandth"),))],
    ),
    "boxes on several images": (
        grounded(
            "<image><image>", "<bbox><bbox>", "a.jpg", "b.jpg", bbox=[[0, 0, 1, 1], [0, 0, 2, 2]], image_id=[1, 0]
        ),
        [Turn("user", (A, B)), Turn("assistant", (Box(0, 0, 1, 1, image=1), Box(0, 0, 2, 2, image=0)))],
    ),
    "a point, which is a box of two numbers": (
        grounded("<image>Open it", "click(start_box='<bbox>')", ref=[], bbox=[[615, 226]]),
        [
            Turn("user", (A, Text("Open it"))),
            Turn("assistant", (Text("click(start_box='"), Point(615, 226), Text("')"))),
        ],
    ),
    "points and boxes in thousandths": (
        grounded("<image>", "<bbox><bbox>", bbox=[[0, 1000], [0, 5, 10, 1000]], bbox_type="norm1000"),
        [
            Turn("user", (A,)),
            Turn("assistant", (Point(0, 1000, "thousandth"), Box(0, 5, 10, 1000, "thousandth"))),
        ],
    ),
    "a point between tags": (
        {"messages": messages("<image>q", "<|box_start|>(246,113)<|box_end|>"), "images": ["a.jpg"]},
        [Turn("user", (A, Text("q"))), Turn("assistant", (Point(246, 113, "thousandth"),))],
    ),
    "no placeholder for the image": (
        {"messages": messages("q"), "images": ["a.jpg"]},
        [Turn("user", (A, Text("q"))), Turn("assistant", (Text("a"),))],
    ),
    "a video and a system turn": (
        {"messages": [{"role": "system", "content": "s"}, *messages("<video>q")], "videos": ["v.mp4"]},
        [
            Turn("system", (Text("s"),)),
            Turn("user", (Video(str(ROOT / "v.mp4")), Text("q"))),
            Turn("assistant", (Text("a"),)),
        ],
    ),
    "an answer marked as to be learned": (
        {"messages": [messages("q")[0], {"role": "assistant", "content": "a", "loss": True}]},
        [Turn("user", (Text("q"),)), Turn("assistant", (Text("a"),), 1.0)],
    ),
    "no objects": (
        {"messages": messages("q"), "objects": {}},
        [Turn("user", (Text("q"),)), Turn("assistant", (Text("a"),))],
    ),
}

BAD = {
    "nothing": ({}, "key `messages` is missing"),
    "turns from and value": (
        {"messages": [{"from": "human", "value": "q"}]},
        "the turns are user; expected user, assistant, user, assistant and so",
    ),
    "a call of a tool": (
        {"messages": [{"role": "tool_call", "content": "{}"}]},
        'a call of `messages[0]` is the object {}; expected {"name": ...,',
    ),
    "a rejected answer": (
        {"messages": messages("q"), "rejected_response": "b"},
        "`rejected_response` (a worse answer, for preference training) would",
    ),
    "a query": (
        {"messages": messages("q"), "query": "q"},
        "`query` (a question and its answer) would be ignored; this format",
    ),
    "objects of ms-swift 2": (
        {"messages": messages("q"), "objects": [{"caption": "x"}]},
        "`image` is the number 0; expected the index, from 0, of one of 0",
    ),
    "boxes that are no list": (grounded("<image>", "<bbox>", bbox={}, ref="x"), '`ref` of `objects` is the text "x"'),
    "a name that is blank": (grounded("<image><ref-object>", "a", ref=[""]), '`ref[0]` is the text ""'),
    "a box of three numbers": (
        grounded("<image>", "<bbox>", bbox=[[1, 2, 3]]),
        "`bbox[0]` is the list [1,2,3]; expected four numbers [x1, y1, x2, y2]",
    ),
    "a point in fractions": (grounded("<image>", "<bbox>", bbox=[[1, 0.2]]), "set `bbox_type` to norm1"),
    "a box of texts": (grounded("<image>", "<bbox>", bbox=[["1", "2", "3", "4"]]), "expected four numbers"),
    "a box of truths": (grounded("<image>", "<bbox>", bbox=[[False, False, True, True]]), "expected four numbers"),
    "a box of enormous numbers": (grounded("<image>", "<bbox>", bbox=[[0, 0, 10**400, 1]]), "expected four numbers"),
    "a box without an area": (grounded("<image>", "<bbox>", bbox=[[1, 2, 1, 4]]), "which has no area"),
    "pixels as fractions": (
        grounded("<image>", "<bbox>", bbox=[BOX], bbox_type="norm1"),
        "leaves 0..1; expected fractions, or a `bbox_type` that names another unit",
    ),
    "an unknown unit": (
        grounded("<image>", "<bbox>", bbox=[BOX], bbox_type="percent"),
        '`bbox_type` is the text "percent"; expected one of real',
    ),
    "a unit that is no text": (
        grounded("<image>", "<bbox>", bbox=[BOX], bbox_type=["real"]),
        '`bbox_type` is the list ["real"]',
    ),
    "an image that is not there": (
        grounded("<image>", "<bbox>", bbox=[BOX], image_id=[1]),
        "`image_id` is the number 1; expected the index, from 0, of one of 1 images",
    ),
    "an image below the first": (
        grounded("<image>", "<bbox>", bbox=[BOX], image_id=[-1]),
        "`image_id` is the number -1",
    ),
    "more images than boxes": (
        grounded("<image>", "<bbox>", bbox=[BOX], image_id=[0, 0]),
        "`image_id` lists 2, but `bbox` 1",
    ),
    "a box that is not placed": (grounded("<image>", "a", bbox=[BOX]), "0 `<bbox>`, but `bbox` lists 1"),
    "a place without a box": (grounded("<image>", "<bbox><bbox>", bbox=[BOX]), "2 `<bbox>`, but `bbox` lists 1"),
    "a name that is not placed": (
        grounded("<image>", "<bbox>", bbox=[BOX], ref=["x"]),
        "0 `<ref-object>`, but `ref` lists 1",
    ),
    "boxes without an image": (
        {"messages": messages("q", "<bbox>"), "objects": {"bbox": [BOX]}},
        "of one of 0 images",
    ),
}


@pytest.mark.parametrize(("record", "turns"), GOOD.values(), ids=GOOD)
def test_a_good_record_becomes_its_conversation(record, turns):
    assert parse(record, Reading(SOURCE, ROOT)) == Conversation(tuple(turns), SOURCE)


@pytest.mark.parametrize(("record", "problem"), BAD.values(), ids=BAD)
def test_a_bad_record_is_refused_with_what_is_wrong_in_it(record, problem, check_refused):
    check_refused(parse, record, problem)
