"""Questions about the text in an image, in TextVQA's files and those like them.

{"image_id": "0054c91397f2fe05", "question": "What does it say?", "answers": ["stop", "stop", "STOP"]}
{"image": "documents/a.png", "question": "What is the date?", "answers": ["1 May"]}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from paddlemix.conversation import Conversation, RecordError, RecordId
from paddlemix.datasets.formats import vqa
from paddlemix.datasets.formats.format import Format, refuse_unread, require, text_at
from paddlemix.datasets.formats.tables import joined, table
from paddlemix.datasets.records.json_files import Located, Record


def parse(record: Record, source: RecordId, root: Path) -> Conversation:
    """Make a conversation of one record.

    Args:
        record: the record; its image is `image`, or the file that `image_id` and `.jpg` name.
        source: where it comes from.
        root: the folder of relative image paths.

    Returns:
        The image and the question, answered by the most common of the answers; the first of several as common.

    Raises:
        RecordError: the record has another shape.
    """
    refuse_unread(record, ("image", "question", "answers"), source)
    image = text_at(record, "image", source) if "image" in record else f"{text_at(record, 'image_id', source)}.jpg"
    answers = require(record, "answers", list, "a list of texts, such as the answers of ten people", source)
    if not answers:
        raise RecordError(source, "`answers` of the record is an empty list; expected at least one text")
    return vqa.parse({"image": image, "question": record.get("question"), "answer": answers}, source, root)


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
