from __future__ import annotations

import json
from pathlib import Path

import pytest

from paddlemix.conversation import Box, Conversation, Image, RecordError, RecordId, Reference, Text, Turn, Video
from paddlemix.datasets.formats.chatml import parse
from paddlemix.datasets.reading.context import Reading

SOURCE = RecordId("train.json", 3)
ROOT = Path("数据") / "图片"


def image(name: str) -> Image:
    return Image(str(ROOT / name))


def said(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("user", "assistant")[i % 2], "value": text} for i, text in enumerate(texts)]


def bad(**record: object) -> dict[str, object]:
    return record


GOOD = {
    "text only": (
        {"id": "identity_0", "conversations": said("你好", "我是助手。")},
        [Turn("user", (Text("你好"),)), Turn("assistant", (Text("我是助手。"),))],
    ),
    "image, reference and box": (
        {
            "conversations": said(
                "Picture 1: <img>巴士 1.jpg</img>\n框出巴士", "<ref>巴士</ref><box>(178,279),(806,884)</box>"
            )
        },
        [
            Turn("user", (Text("Picture 1: "), image("巴士 1.jpg"), Text("\n框出巴士"))),
            Turn("assistant", (Reference("巴士"), Box(178, 279, 806, 884, "thousandth", 0))),
        ],
    ),
    "a box lies on the latest image": (
        {
            "conversations": said(
                "<box>(1,1),(2,2)</box><img>a.jpg</img><img>b.jpg</img>?",
                "<box>(3,3),(4,4)</box>",
                "<img>c.jpg</img><box>(5,5),(6,6)</box>",
                "yes",
            )
        },
        [
            Turn("user", (Box(1, 1, 2, 2, "thousandth", 0), image("a.jpg"), image("b.jpg"), Text("?"))),
            Turn("assistant", (Box(3, 3, 4, 4, "thousandth", 1),)),
            Turn("user", (image("c.jpg"), Box(5, 5, 6, 6, "thousandth", 2))),
            Turn("assistant", (Text("yes"),)),
        ],
    ),
    "videos, from a file, an address and frames": (
        {
            "conversations": said(
                "<img>a.jpg</img><video>跑.mp4</video>?",
                "<box>(1,1),(2,2)</box>",
                'v: <video>http://x/b.mp4</video><video>["1.jpg", "/2.jpg"]</video>',
                "yes",
            )
        },
        [
            Turn("user", (image("a.jpg"), Video(str(ROOT / "跑.mp4")), Text("?"))),
            Turn("assistant", (Box(1, 1, 2, 2, "thousandth", 0),)),
            Turn("user", (Text("v: "), Video("http://x/b.mp4"), Video((str(ROOT / "1.jpg"), "/2.jpg")))),
            Turn("assistant", (Text("yes"),)),
        ],
    ),
    "other names of the roles, and a system turn": (
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "q"},
                {"from": "gpt", "value": "a"},
            ]
        },
        [Turn("system", (Text("Be brief."),)), Turn("user", (Text("q"),)), Turn("assistant", (Text("a"),))],
    ),
    "pairs with one image": (
        {"image": "a.jpg", "conversations": [["q", "a"], ["q2", "a2"]]},
        [
            Turn("user", (image("a.jpg"), Text("q"))),
            Turn("assistant", (Text("a"),)),
            Turn("user", (Text("q2"),)),
            Turn("assistant", (Text("a2"),)),
        ],
    ),
    "several listed images and a blank question": (
        {"image": ["a.jpg", "b.jpg"], "conversations": [["", "two"]]},
        [Turn("user", (image("a.jpg"), image("b.jpg"))), Turn("assistant", (Text("two"),))],
    ),
    "listed images stand before the user turn, not the system turn": (
        {"image": "a.jpg", "conversations": [{"from": "system", "value": "s"}, *said("q", "a")]},
        [Turn("system", (Text("s"),)), Turn("user", (image("a.jpg"), Text("q"))), Turn("assistant", (Text("a"),))],
    ),
    "an image both listed and inline is shown once": (
        {"image": "a.jpg", "conversations": [["<img>a.jpg</img>q", "a"]]},
        [Turn("user", (image("a.jpg"), Text("q"))), Turn("assistant", (Text("a"),))],
    ),
    "null is no image": (
        {"image": None, "images": None, "conversations": [["q", "a"]]},
        [Turn("user", (Text("q"),)), Turn("assistant", (Text("a"),))],
    ),
    "addresses and absolute paths stay as they are": (
        {"image": ["https://e.org/a.jpg", "HTTP://e.org/图.jpg", "/abs/a.jpg"], "conversations": [["q", "a"]]},
        [
            Turn(
                "user",
                (Image("https://e.org/a.jpg"), Image("HTTP://e.org/图.jpg"), Image("/abs/a.jpg"), Text("q")),
            ),
            Turn("assistant", (Text("a"),)),
        ],
    ),
}

A = "an answer"
BAD = {
    "no conversations": (
        bad(image="a.jpg", text="q"),
        "nothing reads `text`; correct the spelling",
    ),
    "an empty record": (bad(), "which has no key at all"),
    "conversations of another kind": (bad(conversations="q"), '`conversations` of the record is the text "q"'),
    "no turn": (bad(conversations=[]), "the turns are none; expected user, assistant, user, assistant and so"),
    "a turn that is no turn": (bad(conversations=[3]), "`conversations[0]` is the number 3"),
    "three texts in a pair": (bad(conversations=[["q", "a", "b"]]), '`conversations[0]` is the list ["q","a","b"]'),
    "a pair without answer": (bad(conversations=[["q"]]), '`conversations[0]` is the list ["q"]'),
    "a number in a pair": (bad(conversations=[["q", 3]]), '`conversations[0]` is the list ["q",3]'),
    "no from": (
        bad(conversations=[{"role": "user", "value": "q"}]),
        "the turns are user; expected user, assistant, user, assistant and so",
    ),
    "no value": (
        bad(conversations=[{"from": "user", "content": "q"}]),
        "the turns are user; expected user, assistant, user, assistant and so",
    ),
    "an unknown role": (
        bad(conversations=[{"from": "bot", "value": "q"}]),
        "the turns are assistant; expected user, assistant, user, assistant",
    ),
    "a role that is no text": (bad(conversations=[{"from": 1, "value": "q"}]), "is the number 1"),
    "a value that is no text": (
        bad(conversations=[{"from": "user", "value": ["q"]}]),
        "the turns are user; expected user, assistant, user, assistant and so",
    ),
    "the assistant begins": (bad(conversations=said("q", A)[::-1]), "the turns are assistant, user"),
    "the user has the last word": (bad(conversations=said("q", A, "q2")), "ending with assistant"),
    "the user speaks twice": (
        bad(conversations=[*said("q"), *said("q", A)]),
        "the turns are user, user, assistant",
    ),
    "only a system turn": (bad(conversations=[{"from": "system", "value": "s"}]), "the turns are system"),
    "a late system turn": (
        bad(conversations=[*said("q", A), {"from": "system", "value": "s"}]),
        "the turns are user, assistant, system",
    ),
    "a blank answer": (bad(conversations=said("q", " \n")), "turn 1 (assistant) is blank"),
    "an image in an answer": (bad(conversations=said("q", "<img>a.jpg</img>")), "turn 1 (assistant) shows an image"),
    "an image that is no text": (
        bad(image=3, conversations=[["q", "a"]]),
        "`image` is the number 3; expected a text that is not blank",
    ),
    "a blank image": (
        bad(image=["a.jpg", ""], conversations=[["q", "a"]]),
        '`image[1]` is the text ""; expected a text that is not blank',
    ),
    "a blank inline image": (
        bad(conversations=said("<img> </img>q", A)),
        'the path in `<img></img>` is the text " "',
    ),
    "an unclosed image at the end": (bad(conversations=said("q <img>a.jpg", A)), "tag `<img>` has no partner"),
    "an unopened image": (bad(conversations=said("q a.jpg</img>", A)), "tag `</img>` has no partner"),
    "an image in an image": (
        bad(conversations=said("<img>a.jpg <img>b.jpg</img>", A)),
        "`<img>` stands inside the path of another image",
    ),
    "a blank video": (bad(conversations=said("<video></video>q", A)), 'the path in `<video></video>` is the text ""'),
    "an unclosed video": (
        bad(conversations=said("<video>a.mp4\nq", A)),
        "the turns have 1 `<video>`, but `videos` lists 0; expected one each",
    ),
    "an unopened video": (bad(conversations=said("a.mp4</video>", A)), "expected `<video>path</video>`"),
    "a video around an image": (
        bad(conversations=said("<video><img>a.jpg</video>", A)),
        'tag `<img>` has no partner in the text "<video><img>a.jpg</video>";',
    ),
    "a list of frames that is none": (
        bad(conversations=said('<video>["a.jpg"</video>', A)),
        "expected a path or a JSON list of paths",
    ),
    "a frame that is no path": (
        bad(conversations=said("<video>[3]</video>", A)),
        "a frame of the path in `<video></video>` is the number 3; expected a",
    ),
    "a video in an answer": (bad(conversations=said("q", "<video>a.mp4</video>")), "turn 1 (assistant) shows a video"),
    "other images listed than inline": (
        bad(image="a.jpg", conversations=[["<img>b.jpg</img>q", "a"]]),
        "but its turns show other images: 数据/图片/b.jpg;",
    ),
    "many other images than listed": (
        bad(image="/a.jpg", conversations=[["<img>/b.jpg</img>" * 9 + "q", "a"]]),
        "other images: /b.jpg, /b.jpg, /b.jpg ...; expected the same ones",
    ),
    "a box out of range": (
        bad(image="a.jpg", conversations=[["q", "<box>(1,1),(2,2000)</box>"]]),
        "box '(1,1),(2,2000)' leaves 0..1000",
    ),
    "a reference around an image": (bad(conversations=said("<ref><img>a.jpg</img></ref>", A)), "tag `<ref>`"),
}


@pytest.mark.parametrize(("record", "turns"), GOOD.values(), ids=GOOD)
def test_a_good_record_becomes_its_conversation(record, turns):
    assert parse(record, Reading(SOURCE, ROOT)) == Conversation(tuple(turns), SOURCE)


@pytest.mark.parametrize(("record", "problem"), BAD.values(), ids=BAD)
def test_a_bad_record_is_refused_with_what_is_wrong_in_it(record, problem):
    with pytest.raises(RecordError) as caught:
        parse(record, Reading(SOURCE, ROOT))
    assert str(caught.value).startswith("train.json, record 3: ")
    assert problem in str(caught.value)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_an_unclosed_image_is_closed_at_the_line_end_and_noted(newline):
    record = {"conversations": said(f"Picture 1: <img>a.jpg{newline}Picture 2: <img>b.jpg</img>", A)}
    conversation = parse(record, Reading(SOURCE, ROOT))
    assert conversation.turns[0].parts == (
        Text("Picture 1: "),
        image("a.jpg"),
        Text(f"{newline}Picture 2: "),
        image("b.jpg"),
    )
    assert conversation.notes == ("an `<img>` is not closed; the line's end is taken for `</img>`",)


def test_many_unclosed_images_are_refused_at_once():
    # Looking at each of them to the end of the line would take hours.
    with pytest.raises(RecordError, match="`<img>` stands inside the path of another image"):
        parse({"conversations": said("<img>" * 200_000, A)}, Reading(SOURCE, ROOT))


@pytest.mark.parametrize(("record", "turns"), GOOD.values(), ids=GOOD)
def test_a_record_is_not_changed_by_parsing(record, turns):
    before = json.dumps(record)
    parse(record, Reading(SOURCE, ROOT))
    assert json.dumps(record) == before
