from __future__ import annotations

from pathlib import Path

import pytest

from paddlemix.conversation import Image, RecordId, Text, Turn
from paddlemix.datasets.formats.textvqa import expand, parse
from paddlemix.datasets.reading.context import Reading

SOURCE = RecordId("train.jsonl", 3)
ROOT = Path("图")
RECORD = {"image_id": "0054c9", "question": "写了什么?", "answers": ["stop", "STOP", "stop"], "image_width": 1024}

BAD = {
    "nothing": ({}, "key `image_id` is missing"),
    "no question": (
        {"image_id": "a", "answers": ["a"]},
        "key `question` is missing in the record, which has `image_id`,",
    ),
    "a blank question": ({**RECORD, "question": ""}, '`question` of the record is the text ""'),
    "no answers": ({"image_id": "a", "question": "q"}, "key `answers` is missing"),
    "an empty list": (
        {**RECORD, "answers": []},
        "`answers` of the record is the list []; expected a text, or a list of",
    ),
    "an answer that is none": (
        {**RECORD, "answers": ["a", 3]},
        "`answers` of the record is the number 3; expected a text that is not",
    ),
    "a blank answer": (
        {**RECORD, "answers": [" "]},
        '`answers` of the record is the text " "; expected a text that is not',
    ),
    "an image that is a number": ({**RECORD, "image_id": 3}, "`image_id` of the record is the number 3"),
    "a broken tag": ({**RECORD, "question": "<ref>"}, "tag `<ref>`"),
    "turns too": ({**RECORD, "messages": [{}]}, "`messages` (turns) would be ignored; this format reads `images`,"),
}


@pytest.mark.parametrize(("keys", "image"), [({}, "0054c9.jpg"), ({"image": "documents/a.png"}, "documents/a.png")])
def test_the_most_common_answer_is_trained_and_all_are_kept(keys, image):
    conversation = parse({**RECORD, **keys}, Reading(SOURCE, ROOT))
    assert conversation.turns == (
        Turn("user", (Image(str(ROOT / image)), Text("写了什么?"))),
        Turn("assistant", (Text("stop"),)),
    )
    assert (conversation.answers, conversation.task) == (("stop", "STOP", "stop"), "vqa")


@pytest.mark.parametrize(("record", "problem"), BAD.values(), ids=BAD)
def test_a_bad_record_is_refused_with_what_is_wrong_in_it(record, problem, check_refused):
    check_refused(parse, record, problem)


def test_the_records_of_a_whole_file_stand_under_data():
    (first, source), (bad, _) = expand({"t.json": {"dataset_type": "train", "data": [RECORD, 3]}})
    assert (first, source) == (RECORD, RecordId("t.json", 0))
    assert str(bad).startswith("t.json, record 1: the record is the number 3")


def test_a_file_without_data_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^t\.json: `data` is null"):
        list(expand({"t.json": RECORD}))
