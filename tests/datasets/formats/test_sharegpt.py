from __future__ import annotations

from pathlib import Path

import pytest

from paddlemix.conversation import Box, Conversation, Image, RecordId, Text, Turn, Video
from paddlemix.datasets.formats.messages import parse
from paddlemix.datasets.reading.context import Reading

SOURCE = RecordId("train.jsonl", 3)
ROOT = Path("图")
ANSWER = Turn("assistant", (Text("a"),))
IMAGE = Image(str(ROOT / "a.jpg"))


def said(question: str, answer: str = "a") -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def messages(question: str, answer: str = "a") -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


GOOD = {
    "the default columns and tags": (
        {"conversations": said("<image>问"), "images": ["a.jpg"]},
        [Turn("user", (IMAGE, Text("问"))), ANSWER],
    ),
    "the demo sets' columns and tags": (
        {"messages": messages("<image>问"), "images": ["a.jpg"]},
        [Turn("user", (IMAGE, Text("问"))), ANSWER],
    ),
    "default columns with the demo's tags": ({"conversations": messages("q")}, [Turn("user", (Text("q"),)), ANSWER]),
    "a system text of its own": (
        {"conversations": said("q"), "system": "s"},
        [Turn("system", (Text("s"),)), Turn("user", (Text("q"),)), ANSWER],
    ),
    "a system turn": (
        {"conversations": [{"from": "system", "value": "s"}, *said("q")]},
        [Turn("system", (Text("s"),)), Turn("user", (Text("q"),)), ANSWER],
    ),
    "columns that are empty": (
        {"conversations": said("q"), "system": "", "images": [], "videos": None, "tools": ""},
        [Turn("user", (Text("q"),)), ANSWER],
    ),
    "a video and its frames": (
        {"conversations": said("<video>q<video>"), "videos": ["v.mp4", ["1.jpg", "2.jpg"]]},
        [
            Turn(
                "user",
                (Video(str(ROOT / "v.mp4")), Text("q"), Video((str(ROOT / "1.jpg"), str(ROOT / "2.jpg")))),
            ),
            ANSWER,
        ],
    ),
    "images before videos where neither has a placeholder": (
        {"conversations": said("q"), "videos": "v.mp4", "images": "a.jpg"},
        [Turn("user", (IMAGE, Video(str(ROOT / "v.mp4")), Text("q"))), ANSWER],
    ),
    "Qwen2-VL's tags": (
        {"conversations": said("<image>q", "<|box_start|>(1,2),(3,4)<|box_end|>"), "images": ["a.jpg"]},
        [Turn("user", (IMAGE, Text("q"))), Turn("assistant", (Box(1, 2, 3, 4, "thousandth"),))],
    ),
    "an image of the hub's kind": (
        {"conversations": said("<image>q"), "images": [{"path": "a.jpg", "bytes": None}]},
        [Turn("user", (IMAGE, Text("q"))), ANSWER],
    ),
}

BAD = {
    "nothing": ({}, "key `messages` is missing in the record, which has no key at all;"),
    "both columns": (
        {"conversations": said("q"), "messages": messages("q")},
        "`conversations`, `messages` mean the same; expected one of them",
    ),
    "an observation": (
        {"conversations": [{"from": "observation", "value": "q"}]},
        "the turns are tool; expected user, assistant, user, assistant and so",
    ),
    "a call": (
        {"conversations": [said("q")[0], {"from": "function_call", "value": "f"}]},
        '`value` of `conversations[1]` is the text "f", which is no JSON',
    ),
    "a preference": (
        {"conversations": said("q"), "chosen": {"from": "gpt"}, "rejected": {}},
        "`chosen` (a better answer, for preference training) would be ignored;",
    ),
    "a system text that is none": ({"conversations": said("q"), "system": 3}, "`system` of the record is the number 3"),
    "two system texts": (
        {"conversations": [{"from": "system", "value": "s"}, *said("q")], "system": "s"},
        "the turns are system, system, user, assistant",
    ),
    "no answer": ({"conversations": said("q")[:1]}, "the turns are user; expected"),
    "parts in place of a text": (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "`text` of `content[0]` of `messages[0]` is null; expected a text",
    ),
    "an image too many": (
        {"conversations": said("<image>q"), "images": ["a", "b"]},
        "1 `<image>`, but `images` lists 2",
    ),
    "a video too few": (
        {"conversations": said("<video><video>q"), "videos": ["a"]},
        "2 `<video>`, but `videos` lists 1",
    ),
    "an image that is a list": (
        {"conversations": said("<image>q"), "images": [["a"]]},
        '`images[0]` is the list ["a"]',
    ),
}


@pytest.mark.parametrize(("record", "turns"), GOOD.values(), ids=GOOD)
def test_a_good_record_becomes_its_conversation(record, turns):
    assert parse(record, Reading(SOURCE, ROOT)) == Conversation(tuple(turns), SOURCE)


@pytest.mark.parametrize(("record", "problem"), BAD.values(), ids=BAD)
def test_a_bad_record_is_refused_with_what_is_wrong_in_it(record, problem, check_refused):
    check_refused(parse, record, problem)
