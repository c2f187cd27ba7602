from __future__ import annotations

from pathlib import Path

import pytest

from paddlemix.conversation import Image, RecordId, Text, Turn
from paddlemix.datasets.formats.caption import parse
from paddlemix.datasets.reading.context import Reading

SOURCE = RecordId("train.jsonl", 3)
ROOT = Path("图")
RECORD = {"id": "1", "image": "00453/1.jpg", "blip_caption": "一辆巴士", "url": "https://h/a.jpg"}

BAD = {
    "nothing": ({}, "key `caption` is missing in the record, which has no key at all;"),
    "no image": ({"blip_caption": "c"}, "key `image` is missing"),
    "only an address": ({"blip_caption": "c", "url": "https://h/a.jpg"}, "which has `blip_caption`, `url`"),
    "no caption": ({"image": "a.jpg"}, "key `caption` is missing in the record, which has `image`; expected a"),
    "a caption that is null": (
        {**RECORD, "blip_caption": None},
        "key `caption` is missing in the record, which has `id`, `image`,",
    ),
    "a caption that is blank": ({**RECORD, "blip_caption": "\n"}, "expected a text that is not blank"),
    "an image that is a number": (
        {**RECORD, "image": 1},
        "`image` is the number 1; expected a text that is not blank",
    ),
    "a tag that is not closed": ({**RECORD, "blip_caption": "<box>"}, "tag `<box>`"),
    "turns too": (
        {**RECORD, "conversations": [{}]},
        "`conversations` (turns) would be ignored; this format reads `images`,",
    ),
}


def test_the_caption_answers_the_prompt():
    conversation = parse(RECORD, Reading(SOURCE, ROOT), prompt="P")
    assert conversation.turns == (
        Turn("user", (Image(str(ROOT / "00453/1.jpg")), Text("P"))),
        Turn("assistant", (Text("一辆巴士"),)),
    )
    assert (conversation.answers, conversation.task) == (("一辆巴士",), "caption")


@pytest.mark.parametrize(("record", "problem"), BAD.values(), ids=BAD)
def test_a_bad_record_is_refused_with_what_is_wrong_in_it(record, problem, check_refused):
    check_refused(parse, record, problem)
