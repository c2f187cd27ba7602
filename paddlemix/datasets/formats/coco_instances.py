"""COCO's own tables of objects, `instances_*.json`, as questions for all objects of a category on an image.

{"images": [{"id": 7, "file_name": "a.jpg", "width": 640, "height": 480}], "categories": [{"id": 3, "name": "bus"}],
 "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [138, 136, 97, 223], "iscrowd": 0}]}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from paddlemix.conversation import RecordError, RecordId
from paddlemix.datasets.reading.tables import rows_by_key, table
from paddlemix.datasets.records.json_files import Located, Record, describe


def expand(documents: Mapping[str, Record]) -> Iterator[Located]:
    """Make a record of each category on each image.

    Args:
        documents: what each file holds.

    Yields:
        The records, as `grounding_xywh` reads them, in the order in which annotations name image and category first; an
        index counts annotations. Crowds, whose boxes hold many objects, are left out.

    Raises:
        ValueError: a table is missing, has no rows, or an image or a category has no id or no name.
    """
    for file, document in documents.items():
        images = rows_by_key(table(document, "images", file), "id", "file_name", f"{file}: `images")
        names = rows_by_key(table(document, "categories", file), "id", "name", f"{file}: `categories")
        found: dict[tuple[object, object], tuple[int, Record]] = {}
        for index, row in enumerate(table(document, "annotations", file)):
            ids = (row.get("image_id"), row.get("category_id")) if isinstance(row, dict) else (None, None)
            if not all(isinstance(one, (int, str)) for one in ids) or ids[0] not in images or ids[1] not in names:
                source = RecordId(file, index)
                yield RecordError(source, f"{describe(row)} names no entry of `images` and `categories`"), source
            elif not row.get("iscrowd"):
                record = {"image": images[ids[0]]["file_name"], "phrase": names[ids[1]]["name"], "bbox": []}
                found.setdefault(ids, (index, record))[1]["bbox"].append(row.get("bbox"))
        for index, record in found.values():
            yield record, RecordId(file, index)
