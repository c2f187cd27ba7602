from __future__ import annotations

from pathlib import Path

import pytest

from paddlemix.conversation import Box, Conversation, Image, RecordId, Reference, Text, Turn, Video, VideoSettings
from paddlemix.datasets.formats.messages import parse
from paddlemix.datasets.reading.context import Reading

SOURCE = RecordId("train.jsonl", 3)
ROOT = Path("图")
ANSWER = Turn("assistant", (Text("a"),))
URL = "data:image/png;base64,AAAA"


def text(value: object) -> dict[str, object]:
    return {"type": "text", "text": value}


def asked(*parts: object, answer: object = "a") -> dict[str, object]:
    return {"messages": [{"role": "user", "content": list(parts)}, {"role": "assistant", "content": answer}]}


def shown(*parts: object) -> list[Turn]:
    return [Turn("user", parts), ANSWER]  # type: ignore[arg-type]


GOOD = {
    "an address": (
        asked({"type": "image_url", "image_url": {"url": "https://h/a.jpg", "detail": "high"}}, text("问")),
        shown(Image("https://h/a.jpg"), Text("问")),
    ),
    "a data: URL": (asked({"type": "image_url", "image_url": {"url": URL}}, text("q")), shown(Image(URL), Text("q"))),
    "an address that is a text": (
        asked(text("q"), {"type": "image_url", "image_url": "a.jpg"}),
        shown(Text("q"), Image(str(ROOT / "a.jpg"))),
    ),
    "a video's address": (
        asked({"type": "video_url", "video_url": {"url": "http://h/v.mp4"}}, text("q")),
        shown(Video("http://h/v.mp4"), Text("q")),
    ),
    "Qwen2-VL's image": (
        asked({"type": "image", "image": "file:///b/a.jpg"}, text("q")),
        shown(Image("/b/a.jpg"), Text("q")),
    ),
    "Qwen2-VL's video with its settings": (
        asked({"type": "video", "video": "v.mp4", "fps": 0.5, "max_pixels": 200704, "nframes": None}, text("q")),
        shown(Video(str(ROOT / "v.mp4"), VideoSettings(fps=0.5, max_pixels=200704)), Text("q")),
    ),
    "frames of a video": (
        asked({"type": "video", "video": ["1.jpg", "2.jpg"]}, text("q")),
        shown(Video((str(ROOT / "1.jpg"), str(ROOT / "2.jpg"))), Text("q")),
    ),
    "plain texts": (
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "a"},
            ]
        },
        [Turn("system", (Text("s"),)), *shown(Text("q"))],
    ),
    "an answer in parts, with boxes": (
        asked(
            {"type": "image", "image": "a.jpg"},
            answer=[text("<|object_ref_start|>x<|object_ref_end|>"), text("<|box_start|>(1,2),(3,4)<|box_end|>")],
        ),
        [
            Turn("user", (Image(str(ROOT / "a.jpg")),)),
            Turn("assistant", (Reference("x"), Box(1, 2, 3, 4, "thousandth"))),
        ],
    ),
}

BAD = {
    "nothing": ({}, "key `messages` is missing"),
    "messages that are no list": ({"messages": {}}, "`messages` of the record is the object {}"),
    "a message that is a text": (
        {"messages": ["q"]},
        '`messages[0]` is the text "q"; expected {"role": ..., "content": ...}',
    ),
    "no role": (
        {"messages": [{"content": "q"}]},
        '`messages[0]` is the object {"content":"q"}; expected {"role": ...,',
    ),
    "a tool": (
        {"messages": [{"role": "tool", "content": "q"}]},
        "the turns are tool; expected user, assistant, user, assistant and so",
    ),
    "no content": (
        {"messages": [{"role": "user"}]},
        "key `content` is missing in `messages[0]`, which has `role`; expected",
    ),
    "a content that is an object": (
        {"messages": [{"role": "user", "content": {}}]},
        "`content` of `messages[0]` is the object {}",
    ),
    "a part of another type": (asked({"type": "input_audio", "input_audio": {}}), '{"type":"input_audio"'),
    "a type that is a list": (
        asked({"type": ["text"]}),
        '`content[0]` of `messages[0]` is the object {"type":["text"]}',
    ),
    "a text that is none": (asked(text(None)), "`text` of `content[0]` of `messages[0]` is null"),
    "an address that is missing": (
        asked({"type": "image_url", "image_url": {}}),
        "`image` of `content[0]` of `messages[0]` is the object {}; expected a",
    ),
    "an address that is a number": (
        asked({"type": "image_url", "image_url": 3}),
        "`image` of `content[0]` of `messages[0]` is the number 3; expected a",
    ),
    "a blank image": (
        asked({"type": "image", "image": ""}),
        '`image` of `content[0]` of `messages[0]` is the text ""; expected a',
    ),
    "an image that is missing": (
        asked({"type": "image"}),
        "the turns have 1 `<image>`, but `images` lists 0; expected one each",
    ),
    "a video without frames": (
        asked({"type": "video", "video": []}),
        "`video` of `content[0]` of `messages[0]` is an empty list; expected a",
    ),
    "a frame that is none": (
        asked({"type": "video", "video": [1]}),
        "a frame of `video` of `content[0]` of `messages[0]` is the number 1;",
    ),
    "frames a second below 0": (
        asked({"type": "video", "video": "v", "fps": -1}),
        "`fps` of `content[0]` of `messages[0]` is the number -1; expected a number above 0",
    ),
    "half a frame": (
        asked({"type": "video", "video": "v", "nframes": 2.5}),
        "is the number 2.5; expected a whole number above 0",
    ),
    "frames that are true": (
        asked({"type": "video", "video": "v", "nframes": True}),
        "is true; expected a whole number",
    ),
    "an image in an answer": (
        asked(text("q"), answer=[{"type": "image", "image": "a"}]),
        "turn 1 (assistant) shows an image",
    ),
}


@pytest.mark.parametrize(("record", "turns"), GOOD.values(), ids=GOOD)
def test_a_good_record_becomes_its_conversation(record, turns):
    assert parse(record, Reading(SOURCE, ROOT)) == Conversation(tuple(turns), SOURCE)


@pytest.mark.parametrize(("record", "problem"), BAD.values(), ids=BAD)
def test_a_bad_record_is_refused_with_what_is_wrong_in_it(record, problem, check_refused):
    check_refused(parse, record, problem)
