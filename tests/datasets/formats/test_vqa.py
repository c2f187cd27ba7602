from __future__ import annotations

from pathlib import Path

import pytest

from paddlemix.conversation import Box, Image, RecordError, RecordId, Reference, Text, Turn
from paddlemix.datasets.formats.vqa import parse
from paddlemix.datasets.reading.context import Reading

SOURCE = RecordId("vqa.jsonl", 2)
ROOT = Path("图")

GOOD = [
    ("red", "red", ("red",)),
    ("红色", "红色", ("红色",)),
    (["red"], "red", ("red",)),
    (["a", "b", "b", "c", "a", "b", "d", "b", "a", "e"], "b", ("a", "b", "b", "c", "a", "b", "d", "b", "a", "e")),
    (["two", "2", "2", "two"], "two", ("two", "2", "2", "two")),
]

BAD = [
    ({}, "key `question` is missing in the record, which has no key at all;"),
    ({"image": "a.jpg"}, "key `question` is missing in the record, which has `image`"),
    ({"image": "a.jpg", "question": "q"}, "key `answer` is missing"),
    (
        {"image": "a.jpg", "question": "q", "answers": ["a"]},
        "nothing reads `answers`; correct the spelling",
    ),
    ({"image": 1, "question": "q", "answer": "a"}, "`image` is the number 1; expected a text that is not blank"),
    ({"image": "  ", "question": "q", "answer": "a"}, '`image` is the text "  "; expected a text that is not blank'),
    ({"image": "a.jpg", "question": None, "answer": "a"}, "`question` of the record is null"),
    ({"image": "a.jpg", "question": "", "answer": "a"}, '`question` of the record is the text ""'),
    (
        {"image": "a.jpg", "question": "q", "answer": ""},
        '`answer` of the record is the text ""; expected a text that is not',
    ),
    (
        {"image": "a.jpg", "question": "q", "answer": 3},
        "`answer` of the record is the number 3; expected a text that is not",
    ),
    (
        {"image": "a.jpg", "question": "q", "answer": None},
        "`answer` of the record is null; expected a text that is not blank",
    ),
    (
        {"image": "a.jpg", "question": "q", "answer": []},
        "`answer` of the record is the list []; expected a text, or a list of",
    ),
    (
        {"image": "a.jpg", "question": "q", "answer": ["a", 3]},
        "`answer` of the record is the number 3; expected a text that is not",
    ),
    (
        {"image": "a.jpg", "question": "q", "answer": ["a", " "]},
        '`answer` of the record is the text " "; expected a text that is not',
    ),
    ({"image": "a.jpg", "question": "q", "answer": [{"answer": "a"}]}, 'is the object {"answer":"a"}'),
    ({"image": "a.jpg", "question": "<box>(1,2),</box>?", "answer": "a"}, "box '(1,2),' is malformed"),
    ({"image": "a.jpg", "question": "q", "answer": ["a", "<ref>"]}, "tag `<ref>`"),
    (
        {"image": "a.jpg", "question": "q", "answer": "a", "objects": "[{}]"},
        "`objects` (boxes) would be ignored; this format reads `images`,",
    ),
]


@pytest.mark.parametrize(("answer", "trained", "answers"), GOOD)
def test_the_most_common_answer_is_trained_and_all_are_kept(answer, trained, answers):
    conversation = parse({"image": "a.jpg", "question": "什么颜色?", "answer": answer}, Reading(SOURCE, ROOT))
    assert conversation.turns == (
        Turn("user", (Image(str(ROOT / "a.jpg")), Text("什么颜色?"))),
        Turn("assistant", (Text(trained),)),
    )
    assert (conversation.source, conversation.answers, conversation.task) == (SOURCE, answers, "vqa")


def test_tags_in_question_and_answer_are_read():
    record = {
        "image": "a.jpg",
        "question": "Is <ref>it</ref><box>(1,2),(3,4)</box> red?",
        "answer": "<ref>yes</ref>",
    }
    conversation = parse(record, Reading(SOURCE, ROOT))
    box = Box(1, 2, 3, 4, "thousandth", 0)
    assert conversation.turns[0].parts[1:] == (Text("Is "), Reference("it"), box, Text(" red?"))
    assert conversation.turns[1].parts == (Reference("yes"),)
    assert conversation.answers == ("yes",)


@pytest.mark.parametrize(("record", "problem"), BAD)
def test_a_bad_record_is_refused_with_what_is_wrong_in_it(record, problem):
    with pytest.raises(RecordError) as caught:
        parse(record, Reading(SOURCE, ROOT))
    assert str(caught.value).startswith("vqa.jsonl, record 2: ")
    assert problem in str(caught.value)
