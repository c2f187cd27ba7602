"""Questions about an image with one answer, or the answers of several people; VQAv2's own files among them.

{"image": "a.jpg", "question": "Which colour is the bus?", "answer": "red"}
{"image": "a.jpg", "question": "Which colour is the bus?", "answer": ["red", "red", "dark red"]}
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from paddlemix.conversation import Conversation, RecordError, RecordId, Turn
from paddlemix.datasets.formats.format import (
    Format,
    build_conversation,
    checked_text,
    image_at,
    plain_text,
    refuse_unread,
    require,
    text_at,
)
from paddlemix.datasets.formats.tags import split_tags
from paddlemix.datasets.formats.vqav2 import join
from paddlemix.datasets.records.json_files import Record

_EXPECTED_ANSWER = "a text or a list of texts that is not empty"


def parse(record: Record, source: RecordId, root: Path) -> Conversation:
    """Make a conversation of one record.

    Args:
        record: the record.
        source: where it comes from.
        root: the folder of relative image paths.

    Returns:
        The image and the question, answered by the most common of the answers; the first of several as common.

    Raises:
        RecordError: the record has another shape.
    """
    refuse_unread(record, ("image", "question", "answer"), source)
    image = image_at(text_at(record, "image", source), root)
    question = split_tags(text_at(record, "question", source), image=0, source=source)
    answers = [split_tags(answer, image=0, source=source) for answer in _answers(record, source)]
    most_common, _ = Counter(answers).most_common(1)[0]
    turns = [Turn("user", (image, *question)), Turn("assistant", most_common)]
    return build_conversation(turns, source, answers=tuple(plain_text(answer) for answer in answers), task="vqa")


FORMAT = Format(parse, expand=join, task="vqa")


def _answers(record: Record, source: RecordId) -> list[str]:
    value = require(record, "answer", object, _EXPECTED_ANSWER, source)
    answers = value if isinstance(value, list) else [value]
    if not answers:
        raise RecordError(source, f"`answer` of the record is an empty list; expected {_EXPECTED_ANSWER}")
    return [checked_text(answer, "an answer in `answer`", source) for answer in answers]
