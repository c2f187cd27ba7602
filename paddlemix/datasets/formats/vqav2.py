"""VQAv2's own files, a pair: one with the questions, one with the answers of ten people to each.

{"data_subtype": "train2014", "questions": [{"question_id": 458752000, "image_id": 458752, "question": "What?"}]}
{"annotations": [{"question_id": 458752000, "image_id": 458752, "answers": [{"answer": "net", "answer_id": 1}, ...]}]}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from paddlemix.conversation import RecordError, RecordId
from paddlemix.datasets.reading.tables import Key, joined, rows_by_key, table
from paddlemix.datasets.records.json_files import Located, Record, describe


def join(documents: Mapping[str, Record]) -> Iterator[Located]:
    """Give the questions their answers, and the file names of their images in COCO.

    Args:
        documents: what each file holds; question and annotation files in any order and number.

    Yields:
        One record per question, `{"image": ..., "question": ..., "answer": [...]}`, in the order of the questions.

    Raises:
        ValueError: a file is neither, one of the two kinds is missing, or a table is.
    """
    questions = {file: document for file, document in documents.items() if "questions" in document}
    annotations = {file: document for file, document in documents.items() if "annotations" in document}
    for file in documents:
        if not questions or not annotations or (file not in questions and file not in annotations):
            raise ValueError(
                f"{file}: the file holds one object; expected a list of records, or VQAv2's questions file and its "
                "annotations file, both in `data_files`"
            )
    answers: dict[Key, Record] = {}
    for file, document in annotations.items():
        answers |= rows_by_key(table(document, "annotations", file), "question_id", "answers", f"{file}: `annotations")
    for file, document in questions.items():
        yield from _records(document, answers, file)


def _records(document: Record, answers: dict[Key, Record], file: str) -> Iterator[Located]:
    subtype = document.get("data_subtype")
    if not isinstance(subtype, str) or not subtype:
        raise ValueError(
            f'{file}: `data_subtype` is {describe(subtype)}; expected the part of COCO the images are in, "train2014"'
        )

    def record(question: Record, source: RecordId) -> Record:
        image_id, question_id = question.get("image_id"), question.get("question_id")
        if isinstance(image_id, bool) or not isinstance(image_id, int):
            raise RecordError(source, f"`image_id` is {describe(image_id)}; expected the number of an image of COCO")
        if not isinstance(question_id, (int, str)) or question_id not in answers:
            raise RecordError(
                source, f"`question_id` is {describe(question_id)}; expected that of an entry of `annotations`"
            )
        return {
            "image": f"COCO_{subtype}_{image_id:012d}.jpg",
            "question": question.get("question"),
            "answer": _texts(answers[question_id]["answers"], source),
        }

    return joined(table(document, "questions", file), record, file)


def _texts(answers: Any, source: RecordId) -> list[Any]:
    if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
        raise RecordError(source, f'its `answers` are {describe(answers)}; expected [{{"answer": "net"}}, ...]')
    return [answer.get("answer") for answer in answers]
