from __future__ import annotations

from pathlib import Path

import pytest

from paddlemix.conversation import Image, RecordId, Text, Turn
from paddlemix.datasets.formats.blip_laion import parse

SOURCE = RecordId("train.jsonl", 3)
ROOT = Path("图")
RECORD = {"id": "1", "image": "00453/1.jpg", "blip_caption": "一辆巴士", "url": "https://h/a.jpg"}

BAD = {
    "nothing": ({}, "key `blip_caption` is missing"),
    "no image": ({"blip_caption": "c"}, "key `image` is missing"),
    "only an address": ({"blip_caption": "c", "url": "https://h/a.jpg"}, "which has `blip_caption`, `url`"),
    "no caption": ({"image": "a.jpg"}, "key `blip_caption` is missing in the record, which has `image`"),
    "another caption": ({"image": "a.jpg", "caption": "c"}, "key `blip_caption` is missing"),
    "a caption that is null": ({**RECORD, "blip_caption": None}, "`blip_caption` of the record is null"),
    "a caption that is blank": ({**RECORD, "blip_caption": "\n"}, "expected a text that is not blank"),
    "a caption that is a list": ({**RECORD, "blip_caption": ["c"]}, '`blip_caption` of the record is the list ["c"]'),
    "an image that is a number": ({**RECORD, "image": 1}, "`image` of the record is the number 1"),
    "two images": ({**RECORD, "image": ["a", "b"]}, '`image` of the record is the list ["a","b"]'),
    "a tag that is not closed": ({**RECORD, "blip_caption": "<box>"}, "tag `<box>`"),
    "turns too": ({**RECORD, "conversations": [{}]}, "`conversations` would be ignored"),
}


def test_the_caption_answers_the_prompt():
    conversation = parse(RECORD, SOURCE, ROOT, prompt="P")
    assert conversation.turns == (
        Turn("user", (Image(str(ROOT / "00453/1.jpg")), Text("P"))),
        Turn("assistant", (Text("一辆巴士"),)),
    )
    assert (conversation.answers, conversation.task) == (("一辆巴士",), "caption")


@pytest.mark.parametrize(("record", "problem"), BAD.values(), ids=BAD)
def test_a_bad_record_is_refused_with_what_is_wrong_in_it(record, problem, check_refused):
    check_refused(parse, record, problem)
