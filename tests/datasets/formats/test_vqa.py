from __future__ import annotations

from pathlib import Path

import pytest

from paddlemix.conversation import Box, Image, RecordError, RecordId, Reference, Text, Turn
from paddlemix.datasets.formats.vqa import parse

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
    ({}, "key `image` is missing"),
    ({"image": "a.jpg"}, "key `question` is missing in the record, which has `image`"),
    ({"image": "a.jpg", "question": "q"}, "key `answer` is missing"),
    ({"image": "a.jpg", "question": "q", "answers": ["a"]}, "which has `image`, `question`, `answers`"),
    ({"image": 1, "question": "q", "answer": "a"}, "`image` of the record is the number 1"),
    ({"image": "  ", "question": "q", "answer": "a"}, '`image` of the record is the text "  "'),
    ({"image": "a.jpg", "question": None, "answer": "a"}, "`question` of the record is null"),
    ({"image": "a.jpg", "question": "", "answer": "a"}, '`question` of the record is the text ""'),
    ({"image": "a.jpg", "question": "q", "answer": ""}, 'an answer in `answer` is the text ""'),
    ({"image": "a.jpg", "question": "q", "answer": 3}, "an answer in `answer` is the number 3; expected a text"),
    ({"image": "a.jpg", "question": "q", "answer": None}, "an answer in `answer` is null"),
    ({"image": "a.jpg", "question": "q", "answer": []}, "`answer` of the record is an empty list"),
    ({"image": "a.jpg", "question": "q", "answer": ["a", 3]}, "an answer in `answer` is the number 3"),
    ({"image": "a.jpg", "question": "q", "answer": ["a", " "]}, 'an answer in `answer` is the text " "'),
    ({"image": "a.jpg", "question": "q", "answer": [{"answer": "a"}]}, 'is the object {"answer":"a"}'),
    ({"image": "a.jpg", "question": "<box>(1,2),</box>?", "answer": "a"}, "box '(1,2),' is malformed"),
    ({"image": "a.jpg", "question": "q", "answer": ["a", "<ref>"]}, "tag `<ref>`"),
    ({"image": "a.jpg", "question": "q", "answer": "a", "objects": "[{}]"}, "`objects` would be ignored"),
]


@pytest.mark.parametrize(("answer", "trained", "answers"), GOOD)
def test_the_most_common_answer_is_trained_and_all_are_kept(answer, trained, answers):
    conversation = parse({"image": "a.jpg", "question": "什么颜色?", "answer": answer}, SOURCE, ROOT)
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
    conversation = parse(record, SOURCE, ROOT)
    box = Box(1, 2, 3, 4, "thousandth", 0)
    assert conversation.turns[0].parts[1:] == (Text("Is "), Reference("it"), box, Text(" red?"))
    assert conversation.turns[1].parts == (Reference("yes"),)
    assert conversation.answers == ("yes",)


@pytest.mark.parametrize(("record", "problem"), BAD)
def test_a_bad_record_is_refused_with_what_is_wrong_in_it(record, problem):
    with pytest.raises(RecordError) as caught:
        parse(record, SOURCE, ROOT)
    assert str(caught.value).startswith("vqa.jsonl, record 2: ")
    assert problem in str(caught.value)
