"""Pictures with a sentence about them, one record a caption, or COCO's own annotation files.

{"image": "a.jpg", "caption": "A red bus."}
{"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": [{"image_id": 7, "caption": "A red bus."}]}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paddlemix.conversation import Conversation, RecordError, RecordId, Text, Turn
from paddlemix.datasets.formats.format import Format, build_conversation, picture_at, plain_text, text_at
from paddlemix.datasets.formats.tags import split_tags
from paddlemix.datasets.records import Entry, Record, as_entries, describe, result_or_error

DEFAULT_PROMPT = "Describe this picture."


def parse(record: Record, source: RecordId, root: Path, prompt: str = DEFAULT_PROMPT) -> Conversation:
    """Make a conversation of one record.

    Args:
        record: the record.
        source: where it comes from.
        root: the folder of relative picture paths.
        prompt: what the user asks about every picture.

    Returns:
        The picture and the prompt, answered by the caption.

    Raises:
        RecordError: the record has another shape.
    """
    picture = picture_at(text_at(record, "image", source), root)
    caption = split_tags(text_at(record, "caption", source), picture=0, source=source)
    turns = [Turn("user", (picture, Text(prompt))), Turn("assistant", caption)]
    return build_conversation(turns, source, answers=(plain_text(caption),), task="caption")


def expand(document: Record, file: str) -> list[Entry]:
    """Join COCO's tables of pictures and captions.

    Args:
        document: what the file holds.
        file: the file to name in errors.

    Returns:
        One record per caption, in the order of the captions.

    Raises:
        ValueError: a table is missing, has no rows, or a picture has no id or no file name.
    """
    images, annotations = (_table(document, key, file) for key in ("images", "annotations"))
    file_names = dict(_id_and_file_name(image, number, file) for number, image in enumerate(images))
    return [
        entry if isinstance(entry, RecordError) else result_or_error(_join, entry, file_names, RecordId(file, index))
        for index, entry in enumerate(as_entries(annotations, file))
    ]


FORMAT = Format(parse, expand=expand, takes_prompt=True)


def _table(document: Record, key: str, file: str) -> list[Any]:
    rows = document.get(key)
    if not isinstance(rows, list) or not rows:
        raise ValueError(
            f"{file}: `{key}` is {describe(rows)}; expected a list that is not empty, "
            "as in COCO's caption files, or a file that is one list of records"
        )
    return rows


def _id_and_file_name(image: Any, number: int, file: str) -> tuple[int | str, str]:
    if isinstance(image, dict) and isinstance(image.get("id"), (int, str)) and isinstance(image.get("file_name"), str):
        return image["id"], image["file_name"]
    raise ValueError(f'{file}: `images[{number}]` is {describe(image)}; expected {{"id": 7, "file_name": "a.jpg"}}')


def _join(annotation: Record, file_names: dict[int | str, str], source: RecordId) -> Record:
    image_id = annotation.get("image_id")
    if not isinstance(image_id, (int, str)) or image_id not in file_names:
        raise RecordError(source, f"`image_id` is {describe(image_id)}; expected the `id` of an entry of `images`")
    return {**annotation, "image": file_names[image_id]}
