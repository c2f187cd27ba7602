from __future__ import annotations

from pathlib import Path

import pytest

from paddlemix.conversation import Image, RecordError, RecordId, Text
from paddlemix.datasets.formats import FORMATS, vqa
from paddlemix.datasets.formats.vqav2 import join
from paddlemix.datasets.reading.context import Reading

QUESTION = {"question_id": 4580, "image_id": 458752, "question": "What is this?"}
ANNOTATION = {"question_id": 4580, "answers": [{"answer": "a net"}, {"answer": "net"}, {"answer": "net"}]}


def pair(questions: object = (QUESTION,), annotations: object = (ANNOTATION,), **keys: object) -> dict[str, dict]:
    tables = [list(rows) if isinstance(rows, tuple) else rows for rows in (questions, annotations)]
    return {
        "q.json": {"data_subtype": "val2014", "questions": tables[0], **keys},
        "a.json": {"annotations": tables[1]},
    }


@pytest.mark.parametrize("name", ["vqa_dataset", "coco_vqa", "vqav2"])
@pytest.mark.parametrize("reverse", [False, True])
def test_questions_find_their_answers_and_images_in_any_order_of_the_files(name, reverse):
    files = dict(sorted(pair().items(), reverse=reverse))
    ((record, source),) = FORMATS[name].expand(files)
    assert source == RecordId("q.json", 0)
    conversation = vqa.parse(record, Reading(source, Path("coco")))
    assert conversation.images == (Image(str(Path("coco/COCO_val2014_000000458752.jpg"))),)
    assert conversation.turns[1].parts == (Text("net"),)
    assert conversation.answers == ("a net", "net", "net")


@pytest.mark.parametrize(
    ("question", "annotation", "problem"),
    [
        ({**QUESTION, "question_id": 1}, ANNOTATION, "`question_id` is the number 1; expected that of an entry"),
        ({**QUESTION, "question_id": [4580]}, ANNOTATION, "`question_id` is the list [4580]"),
        ({**QUESTION, "question_id": None}, ANNOTATION, "`question_id` is null"),
        ({**QUESTION, "image_id": "458752"}, ANNOTATION, '`image_id` is the text "458752"; expected the number'),
        ({**QUESTION, "image_id": None}, ANNOTATION, "`image_id` is null"),
        ({**QUESTION, "image_id": True}, ANNOTATION, "`image_id` is true"),
        (QUESTION, {**ANNOTATION, "answers": "net"}, 'its `answers` are the text "net"'),
        (QUESTION, {**ANNOTATION, "answers": ["net"]}, 'its `answers` are the list ["net"]; expected [{"answer"'),
        (3, ANNOTATION, "the record is the number 3"),
    ],
)
def test_a_bad_row_does_not_hide_the_others(question, annotation, problem):
    other = {**QUESTION, "question_id": 9}
    files = pair((other, question), (annotation, {**ANNOTATION, "question_id": 9}))
    (first, _), (error, source) = join(files)
    assert isinstance(first, dict)
    assert isinstance(error, RecordError) and error.source == source
    assert str(error).startswith("q.json, record 1: ") and problem in str(error)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"question": ""}, '`question` of the record is the text ""'),
        ({"question": 3}, "`question` of the record is the number 3"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(keys, problem):
    ((record, source),) = join(pair(({**QUESTION, **keys},)))
    with pytest.raises(RecordError) as caught:
        vqa.parse(record, Reading(source, Path()))
    assert str(caught.value).startswith("q.json, record 0: ") and problem in str(caught.value)


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"q.json": pair()["q.json"]}, "q.json: .*VQAv2's questions file and its annotations file"),
        ({"a.json": pair()["a.json"]}, "a.json: .*VQAv2's questions file and its annotations file"),
        ({**pair(), "x.json": {"image": "a"}}, "x.json: the file holds one object"),
        (pair(questions=[]), r"q.json: `questions` is the list \[\]"),
        (pair(annotations={}), "a.json: `annotations` is the object {}"),
        (pair(annotations=[3]), r"a.json: `annotations\[0\]` is the number 3"),
        (pair(annotations=[{"question_id": 1}]), "expected an object with `question_id` and `answers`"),
        (pair(data_subtype=None), "q.json: `data_subtype` is null"),
        (pair((QUESTION,), (ANNOTATION, {**ANNOTATION, "answers": []})), r"a.json: `annotations\[1\]` has the"),
    ],
)
def test_files_that_are_no_pair_are_refused_by_name(files, problem):
    with pytest.raises(ValueError, match=problem):
        list(join(files))
