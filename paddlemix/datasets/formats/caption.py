"""Captions, one or several an image; COCO's own files, Karpathy's splits and the metadata of image folders among them.

{"image": "a.jpg", "caption": "A <ref>red bus</ref><box>(178,279),(806,884)</box> on a street."}
{"image": "a.jpg", "caption": ["A red bus.", "A bus on a street."]}     {"file_name": "a.jpg", "text": "A red bus."}
{"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": [{"id": 1, "image_id": 7, "caption": "A red bus."}]}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from paddlemix.conversation import Conversation, RecordError, RecordId
from paddlemix.datasets.formats.format import Format
from paddlemix.datasets.reading.context import Reading
from paddlemix.datasets.reading.keys import IMAGE_KEYS, check_keys, keys, only_key
from paddlemix.datasets.reading.question import ask, shown_images, texts_at
from paddlemix.datasets.reading.tables import Key, joined, rows_by_key, table
from paddlemix.datasets.records.json_files import Located, Record, describe

DEFAULT_PROMPT = "Describe this picture."
_CAPTION_KEYS = ("caption", "captions", "text", "blip_caption")
_READ = keys(*IMAGE_KEYS, *_CAPTION_KEYS)


def parse(record: Record, reading: Reading, prompt: str = DEFAULT_PROMPT) -> Conversation:
    """Make a conversation of one record.

    Args:
        record: the record.
        reading: of it.
        prompt: what the user asks about every image.

    Returns:
        The image and the prompt, answered by the caption; of several the first is learned, and all are scored against.

    Raises:
        RecordError: the record has another shape.
    """
    check_keys(record, _READ, reading)
    key = only_key(record, _CAPTION_KEYS, reading) or _CAPTION_KEYS[0]
    captions = texts_at(record, key, reading)
    return ask(shown_images(record, reading), [prompt], [captions], reading, "caption")


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
