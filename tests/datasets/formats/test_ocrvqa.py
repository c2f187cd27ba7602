from __future__ import annotations

from pathlib import Path

import pytest

from paddlemix.conversation import Image, RecordId, Text, Turn
from paddlemix.datasets.formats import FORMATS
from paddlemix.datasets.formats.ocrvqa import expand, parse
from paddlemix.datasets.reading.context import Reading

SOURCE = RecordId("train.jsonl", 3)
ROOT = Path("图")
RECORD = {"image": "1.jpg", "questions": ["谁写的?", "Title?"], "answers": ["安", "Dogs"], "genre": "Humour"}

BAD = {
    "nothing": ({}, "key `image` is missing in the record, which has no key at all;"),
    "no questions": ({"image": "a", "answers": ["a"]}, "key `questions` is missing"),
    "no answers": ({"image": "a", "questions": ["q"]}, "key `answers` is missing"),
    "one question": ({**RECORD, "questions": "q"}, '`questions` of the record is the text "q"; expected a list'),
    "more questions than answers": ({**RECORD, "answers": ["a"]}, "`questions` lists 2, `answers` 1; expected as many"),
    "none at all": ({**RECORD, "questions": [], "answers": []}, "`questions` lists 0, `answers` 0"),
    "a question that is none": ({**RECORD, "questions": ["q", None]}, "`questions[1]` is null"),
    "a blank answer": ({**RECORD, "answers": ["", "a"]}, '`answers[0]` is the text ""'),
    "an answer that is a number": ({**RECORD, "answers": ["a", 1999]}, "`answers[1]` is the number 1999"),
    "an image that is a number": (
        {**RECORD, "image": 3},
        "`image` is the number 3; expected a text that is not blank",
    ),
    "a blank address": (
        {"imageURL": "", "questions": ["q"], "answers": ["a"]},
        "key `image` is missing in the record, which has `questions`,",
    ),
    "a broken tag": ({**RECORD, "answers": ["a", "</ref>"]}, "tag `</ref>`"),
    "turns too": (
        {**RECORD, "conversations": [{}]},
        "`conversations` (turns) would be ignored; this format reads `images`,",
    ),
}


def test_all_questions_about_an_image_make_one_conversation_scored_by_the_last():
    conversation = parse(RECORD, Reading(SOURCE, ROOT))
    assert conversation.turns == (
        Turn("user", (Image(str(ROOT / "1.jpg")), Text("谁写的?"))),
        Turn("assistant", (Text("安"),)),
        Turn("user", (Text("Title?"),)),
        Turn("assistant", (Text("Dogs"),)),
    )
    assert (conversation.answers, conversation.task) == (("Dogs",), "vqa")


@pytest.mark.parametrize(("record", "problem"), BAD.values(), ids=BAD)
def test_a_bad_record_is_refused_with_what_is_wrong_in_it(record, problem, check_refused):
    check_refused(parse, record, problem)


def book(split: int) -> dict[str, object]:
    return {"imageURL": "https://h/a.jpg", "questions": ["q"], "answers": [str(split)], "split": split}


def test_each_split_of_the_whole_file_has_a_name_of_its_own():
    document = {"07": book(1), "08": book(2), "09": "x", "10": book(1), "11": book(3)}
    taken = {
        name: [source.index for _, source in FORMATS[f"ocrvqa_{name}"].expand({"dataset.json": document})]
        for name in ("train", "val", "test")
    }
    assert taken == {"train": [0, 2, 3], "val": [1, 2], "test": [2, 4]}  # 2, which is no record, is bad in each


def test_a_file_of_several_splits_is_refused_with_their_names():
    with pytest.raises(ValueError, match=r"^dataset\.json: .*`ocrvqa_train`, `ocrvqa_test` as `name`"):
        list(expand({"dataset.json": {"07": book(1), "08": book(3)}}))


def test_a_split_that_the_file_does_not_hold_is_refused():
    with pytest.raises(ValueError, match=r"^dataset\.json: .*expected `ocrvqa_val` as `name`"):
        list(expand({"dataset.json": {"07": book(2)}}, split=3))
    assert len(list(expand({"dataset.json": {"07": book(2)}}))) == 1
