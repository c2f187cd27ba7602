from __future__ import annotations

from pathlib import Path

import pytest

from paddlemix.conversation import Box, Conversation, Image, RecordId, Reference, Text, Turn, Video
from paddlemix.datasets.formats.messages import parse
from paddlemix.datasets.reading.context import Reading

SOURCE = RecordId("train.jsonl", 3)
ROOT = Path("图")
A = {"from": "gpt", "value": "a"}
ANSWER = Turn("assistant", (Text("a"),))


def ask(*values: str) -> list[dict[str, str]]:
    return [turn for value in values for turn in ({"from": "human", "value": value}, A)]


def image(name: str) -> Image:
    return Image(str(ROOT / name))


TAGGED = "<|object_ref_start|>x<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>"

GOOD = {
    "an image before its question": (
        {"id": "1", "image": "a.jpg", "conversations": ask("<image>\n问")},
        [Turn("user", (image("a.jpg"), Text("\n问"))), ANSWER],
    ),
    "an image after its question, as in Stage 1": (
        {"image": "00453/1.jpg", "conversations": ask("Describe it.\n<image>")},
        [Turn("user", (Text("Describe it.\n"), image("00453/1.jpg"))), ANSWER],
    ),
    "several images over several turns": (
        {"image": ["a.jpg", "b.jpg"], "conversations": ask("<image>1", "2<image>")},
        [
            Turn("user", (image("a.jpg"), Text("1"))),
            ANSWER,
            Turn("user", (Text("2"), image("b.jpg"))),
            ANSWER,
        ],
    ),
    "images without a placeholder": (
        {"image": ["a.jpg", "b.jpg"], "conversations": ask("q", "r")},
        [
            Turn("user", (image("a.jpg"), image("b.jpg"), Text("q"))),
            ANSWER,
            Turn("user", (Text("r"),)),
            ANSWER,
        ],
    ),
    "no image": ({"conversations": ask("q")}, [Turn("user", (Text("q"),)), ANSWER]),
    "an image that is null": ({"image": None, "conversations": ask("q")}, [Turn("user", (Text("q"),)), ANSWER]),
    "a video": (
        {"video": "v.mp4", "conversations": ask("<video>q")},
        [Turn("user", (Video(str(ROOT / "v.mp4")), Text("q"))), ANSWER],
    ),
    "an address and a data: URL": (
        {"image": ["https://a/b.jpg", "data:image/png;base64,AAAA"], "conversations": ask("<image><image>q")},
        [Turn("user", (Image("https://a/b.jpg"), Image("data:image/png;base64,AAAA"), Text("q"))), ANSWER],
    ),
    "tags lie on the image before them": (
        {"image": ["a.jpg", "b.jpg"], "conversations": ask(f"<image><image>{TAGGED}")},
        [
            Turn("user", (image("a.jpg"), image("b.jpg"), Reference("x"), Box(1, 2, 3, 4, "thousandth", image=1))),
            ANSWER,
        ],
    ),
}

BAD = {
    "nothing": ({}, "key `messages` is missing in the record, which has no key at all;"),
    "no turns": ({"conversations": []}, "the turns are none; expected user, assistant, user, assistant and so"),
    "turns that are no list": ({"conversations": "q"}, '`conversations` of the record is the text "q"'),
    "roles and contents": (
        {"conversations": [{"role": "user", "content": "q"}]},
        "the turns are user; expected user, assistant, user, assistant and so",
    ),
    "an unknown speaker": (
        {"conversations": [{"from": "bing", "value": "q"}]},
        "`from` of `conversations[0]` is the text",
    ),
    "a speaker that is no text": (
        {"conversations": [{"from": 1, "value": "q"}]},
        "is the number 1; expected one of user",
    ),
    "no value": (
        {"conversations": [{"from": "human"}]},
        "key `content` is missing in `conversations[0]`, which has `from`;",
    ),
    "a value that is no text": (
        {"conversations": [{"from": "human", "value": None}]},
        "`value` of `conversations[0]` is null",
    ),
    "an answer that is blank": (
        {"conversations": [*ask("q"), *ask("r")[:1], {"from": "gpt", "value": " "}]},
        "turn 3 (assistant) is blank",
    ),
    "two questions": ({"conversations": [ask("q")[0], *ask("q")]}, "the turns are user, user, assistant"),
    "more placeholders than images": (
        {"image": "a.jpg", "conversations": ask("<image><image>q")},
        "the turns have 2 `<image>`, but `images` lists 1; expected one each",
    ),
    "fewer placeholders than images": (
        {"image": ["a.jpg", "b.jpg"], "conversations": ask("<image>q")},
        "the turns have 1 `<image>`, but `images` lists 2; expected one each",
    ),
    "a placeholder without an image": (
        {"conversations": ask("<image>q")},
        "the turns have 1 `<image>`, but `images` lists 0; expected one each",
    ),
    "an image that is no path": ({"image": 3, "conversations": ask("<image>")}, "`image` is the number 3"),
    "an image that is blank": ({"image": [" "], "conversations": ask("<image>")}, '`image[0]` is the text " "'),
    "a video that is no path": (
        {"video": {}, "conversations": ask("<video>")},
        "the turns have 1 `<video>`, but `videos` lists 0; expected one each",
    ),
    "a video without frames": (
        {"video": [[]], "conversations": ask("<video>")},
        "`video[0]` is an empty list; expected a path, or the paths of its",
    ),
}


@pytest.mark.parametrize(("record", "turns"), GOOD.values(), ids=GOOD)
def test_a_good_record_becomes_its_conversation(record, turns):
    assert parse(record, Reading(SOURCE, ROOT)) == Conversation(tuple(turns), SOURCE)


@pytest.mark.parametrize(("record", "problem"), BAD.values(), ids=BAD)
def test_a_bad_record_is_refused_with_what_is_wrong_in_it(record, problem, check_refused):
    check_refused(parse, record, problem)
