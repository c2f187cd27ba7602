"""Questions about an image with one answer, or the answers of several people; VQAv2's own files among them.

{"image": "a.jpg", "question": "Which colour is the bus?", "answer": "red"}
{"image": "a.jpg", "question": "Which colour is the bus?", "answer": ["red", "red", "dark red"]}
"""

from __future__ import annotations

from paddlemix.conversation import Conversation
from paddlemix.datasets.formats.format import Format
from paddlemix.datasets.formats.vqav2 import join
from paddlemix.datasets.reading.context import Reading
from paddlemix.datasets.reading.fields import text_at
from paddlemix.datasets.reading.keys import IMAGE_KEYS, check_keys, keys
from paddlemix.datasets.reading.question import ask, shown_images, texts_at
from paddlemix.datasets.records.json_files import Record

_READ = keys(*IMAGE_KEYS, "question", "answer")


def parse(record: Record, reading: Reading) -> Conversation:
    """Make a conversation of one record.

    Args:
        record: the record.
        reading: of it.

    Returns:
        The image and the question, answered by the most common of the answers; the first of several as common.

    Raises:
        RecordError: the record has another shape.
    """
    check_keys(record, _READ, reading)
    question = text_at(record, "question", reading.source)
    return ask(shown_images(record, reading), [question], [texts_at(record, "answer", reading)], reading, "vqa")


FORMAT = Format(parse, expand=join, task="vqa")
