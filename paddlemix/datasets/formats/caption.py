"""Images with a sentence about them, one record a caption, or COCO's own annotation files.

{"image": "a.jpg", "caption": "A red bus."}
{"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": [{"image_id": 7, "caption": "A red bus."}]}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from paddlemix.conversation import Conversation, RecordError, RecordId, Text, Turn
from paddlemix.datasets.formats.format import (
    Format,
    build_conversation,
    image_at,
    plain_text,
    refuse_unread,
    text_at,
)
from paddlemix.datasets.formats.tables import Key, joined, rows_by_key, table
from paddlemix.datasets.formats.tags import split_tags
from paddlemix.datasets.records.json_files import Located, Record, describe

DEFAULT_PROMPT = "Describe this picture."


def parse(record: Record, source: RecordId, root: Path, prompt: str = DEFAULT_PROMPT) -> Conversation:
    """Make a conversation of one record.

    Args:
        record: the record.
        source: where it comes from.
        root: the folder of relative image paths.
        prompt: what the user asks about every image.

    Returns:
        The image and the prompt, answered by the caption.

    Raises:
        RecordError: the record has another shape.
    """
    refuse_unread(record, ("image", "caption"), source)
    image = image_at(text_at(record, "image", source), root)
    caption = split_tags(text_at(record, "caption", source), image=0, source=source)
    turns = [Turn("user", (image, Text(prompt))), Turn("assistant", caption)]
    return build_conversation(turns, source, answers=(plain_text(caption),), task="caption")


def expand(documents: Mapping[str, Record]) -> Iterator[Located]:
    """Join COCO's tables of images and captions.

    Args:
        documents: what each file holds.

    Yields:
        One record per caption, in the order of the captions.

    Raises:
        ValueError: a table is missing, has no rows, or an image has no id or no file name.
    """
    for file, document in documents.items():
        images = rows_by_key(table(document, "images", file), "id", "file_name", f"{file}: `images")
        annotations = table(document, "annotations", file)

        def join(annotation: Record, source: RecordId, images: dict[Key, Record] = images) -> Record:
            image_id = annotation.get("image_id")
            if not isinstance(image_id, (int, str)) or image_id not in images:
                raise RecordError(
                    source, f"`image_id` is {describe(image_id)}; expected the `id` of an entry of `images`"
                )
            return {**annotation, "image": images[image_id]["file_name"]}

        yield from joined(annotations, join, file)


FORMAT = Format(parse, expand=expand, takes_prompt=True, task="caption")
