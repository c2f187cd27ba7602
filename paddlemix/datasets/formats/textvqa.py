"""Questions about the text in an image, in TextVQA's files and those like them.

{"image_id": "0054c91397f2fe05", "question": "What does it say?", "answers": ["stop", "stop", "STOP"]}
{"image": "documents/a.png", "question": "What is the date?", "answers": ["1 May"]}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from paddlemix.conversation import Conversation
from paddlemix.datasets.formats.format import Format
from paddlemix.datasets.reading.context import Reading
from paddlemix.datasets.reading.fields import text_at
from paddlemix.datasets.reading.keys import IMAGE_KEYS, check_keys, keys, only_key
from paddlemix.datasets.reading.question import ask, shown_images, texts_at
from paddlemix.datasets.reading.tables import joined, table
from paddlemix.datasets.records.json_files import Located, Record

# What TextVQA's and DocVQA's own files say of a record beside it.
_BESIDE = (
    "image_classes",
    "flickr_original_url",
    "flickr_300k_url",
    "question_tokens",
    "set_name",
    "ocr_tokens",
    "docId",
    "ucsf_document_id",
    "ucsf_document_page_no",
    "questionId",
    "question_types",
    "data_split",
)
_READ = keys(*IMAGE_KEYS, "image_id", "question", "answers", *_BESIDE)


def parse(record: Record, reading: Reading) -> Conversation:
    """Make a conversation of one record.

    Args:
        record: the record; its image is listed, or the file that `image_id` and `.jpg` name.
        reading: of it.

    Returns:
        The image and the question, answered by the most common of the answers; the first of several as common.

    Raises:
        RecordError: the record has another shape.
    """
    check_keys(record, _READ, reading)
    if only_key(record, IMAGE_KEYS, reading) is None:
        record = {**record, "image": f"{text_at(record, 'image_id', reading.source)}.jpg"}
    question, answers = text_at(record, "question", reading.source), texts_at(record, "answers", reading)
    return ask(shown_images(record, reading), [question], [answers], reading, "vqa")


def expand(documents: Mapping[str, Record]) -> Iterator[Located]:
    """Take the records out of TextVQA's files.

    Args:
        documents: what each file holds, the records under `data`.

    Yields:
        The records.

    Raises:
        ValueError: `data` is missing, or empty.
    """
    for file, document in documents.items():
        yield from joined(table(document, "data", file), lambda record, source: record, file)


FORMAT = Format(parse, expand=expand, task="vqa")
