"""Several questions about one image, each with an answer, as OCR-VQA has them about covers of books.

{"image": "0395996.jpg", "questions": ["Who wrote this?", "What is its title?"], "answers": ["Sandra Boynton", "Dogs"]}
{"761183272": {"imageURL": "https://...", "questions": [...], "answers": [...], "split": 1}, ...}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from paddlemix.conversation import Conversation, RecordError, RecordId
from paddlemix.datasets.formats.format import Format
from paddlemix.datasets.reading.context import Reading
from paddlemix.datasets.reading.fields import checked_text, require
from paddlemix.datasets.reading.keys import IMAGE_KEYS, check_keys, keys, only_key
from paddlemix.datasets.reading.question import ask, shown_images
from paddlemix.datasets.records.json_files import Located, Record, as_entries

# The numbers that OCR-VQA's own file has for them.
SPLITS = {"train": 1, "val": 2, "test": 3}


# What OCR-VQA's own file says of a book beside its questions.
_BESIDE = ("title", "authorName", "genre")
_READ = keys(*IMAGE_KEYS, "imageURL", "questions", "answers", *_BESIDE)


def parse(record: Record, reading: Reading) -> Conversation:
    """Make a conversation of one record.

    Args:
        record: the record; its image is listed, or `imageURL` where it lists none.
        reading: of it.

    Returns:
        The image and all questions with their answers; it is scored by the last.

    Raises:
        RecordError: the record has another shape.
    """
    check_keys(record, _READ, reading)
    if only_key(record, IMAGE_KEYS, reading) is None and "imageURL" in record:
        record = {**record, "image": record["imageURL"]}
    images = shown_images(record, reading)
    questions, answers = (_texts(record, key, reading) for key in ("questions", "answers"))
    if len(questions) != len(answers) or not questions:
        raise reading.error(
            f"`questions` lists {len(questions)}, `answers` {len(answers)}; expected as many, at least one each"
        )
    return ask(images, questions, [[answer] for answer in answers], reading, "vqa")


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


def _texts(record: Record, key: str, reading: Reading) -> list[str]:
    values = require(record, key, list, "a list of texts", reading.source)
    return [checked_text(value, f"`{key}[{number}]`", reading.source) for number, value in enumerate(values)]
