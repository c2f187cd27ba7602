"""Several questions about one image, each with an answer, as OCR-VQA has them about covers of books.

{"image": "0395996.jpg", "questions": ["Who wrote this?", "What is its title?"], "answers": ["Sandra Boynton", "Dogs"]}
{"761183272": {"imageURL": "https://...", "questions": [...], "answers": [...], "split": 1}, ...}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
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
from paddlemix.datasets.records.json_files import Located, Record, as_entries

# The numbers that OCR-VQA's own file has for them.
SPLITS = {"train": 1, "val": 2, "test": 3}


def parse(record: Record, source: RecordId, root: Path) -> Conversation:
    """Make a conversation of one record.

    Args:
        record: the record; its image is `image`, or `imageURL` where there is no such key.
        source: where it comes from.
        root: the folder of relative image paths.

    Returns:
        The image and all questions with their answers; it is scored by the last.

    Raises:
        RecordError: the record has another shape.
    """
    refuse_unread(record, ("image", "questions", "answers"), source)
    image = image_at(text_at(record, "image" if "image" in record else "imageURL", source), root)
    questions, answers = (_texts(record, key, source) for key in ("questions", "answers"))
    if len(questions) != len(answers) or not questions:
        raise RecordError(
            source, f"`questions` lists {len(questions)}, `answers` {len(answers)}; expected as many, at least one each"
        )
    turns = []
    for question, answer in zip(questions, answers, strict=True):
        turns.append(Turn("user", split_tags(question, 0, source)))
        turns.append(Turn("assistant", split_tags(answer, 0, source)))
    turns[0] = Turn("user", (image, *turns[0].parts))
    return build_conversation(turns, source, answers=(plain_text(turns[-1].parts),), task="vqa")


def expand(documents: Mapping[str, Record], split: int | None = None) -> Iterator[Located]:
    """Take the records out of OCR-VQA's own file.

    Args:
        documents: what each file holds: records by the numbers of their books.
        split: the `split` to take; None takes all, if there is only one.

    Yields:
        The records; an index counts the records of all splits.

    Raises:
        ValueError: there are several splits and none is asked for, or none of the one that is.
    """
    for file, document in documents.items():
        entries = as_entries(list(document.values()), file)
        found = [entry.get("split") for entry in entries if isinstance(entry, dict)]
        splits = {name: number for name, number in SPLITS.items() if number in found}
        if (split is None and len(splits) > 1) or (split is not None and split not in splits.values()):
            names = ", ".join(f"`ocrvqa_{name}`" for name in splits) or "`ocrvqa`"
            raise ValueError(f"{file}: the file holds another split, or several; expected {names} as `name`")
        for index, entry in enumerate(entries):
            if split is None or isinstance(entry, RecordError) or entry.get("split") == split:
                yield entry, RecordId(file, index)


FORMAT = Format(parse, expand=expand, task="vqa")
SPLIT_FORMATS = {
    name: Format(parse, expand=partial(expand, split=number), task="vqa") for name, number in SPLITS.items()
}


def _texts(record: Record, key: str, source: RecordId) -> list[str]:
    values = require(record, key, list, "a list of texts", source)
    return [checked_text(value, f"`{key}[{number}]`", source) for number, value in enumerate(values)]
