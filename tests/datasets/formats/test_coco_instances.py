from __future__ import annotations

from pathlib import Path

import pytest

from paddlemix.conversation import Box, Image, RecordError, RecordId, Reference
from paddlemix.datasets.formats import find_format
from paddlemix.datasets.formats.coco_instances import expand
from paddlemix.datasets.reading.context import Reading

IMAGES = [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}]
CATEGORIES = [{"id": 3, "name": "bus"}, {"id": 4, "name": "cat"}]


def row(image, category, bbox, **keys):
    return {"image_id": image, "category_id": category, "bbox": bbox, "segmentation": [[1]], "area": 9, **keys}


def expanded(*rows):
    return list(expand({"c.json": {"images": IMAGES, "categories": CATEGORIES, "annotations": list(rows)}}))


def test_all_objects_of_a_category_on_an_image_are_one_record():
    records = expanded(
        row(7, 3, [1, 2, 3, 4]), row(8, 4, [5, 6, 7, 8]), row(7, 3, [9, 9, 1, 1]), row(7, 4, [1, 1, 1, 1])
    )
    assert [source.index for _, source in records] == [0, 1, 3]
    assert records[0][0] == {"image": "a.jpg", "phrase": "bus", "bbox": [[1, 2, 3, 4], [9, 9, 1, 1]]}
    conversation = find_format("coco_instances").parse(records[0][0], Reading(records[0][1], Path("root")))
    assert conversation.images == (Image("root/a.jpg"),)
    assert conversation.turns[1].parts == (Reference("bus"), Box(1, 2, 4, 6), Box(9, 9, 10, 10))


def test_a_crowd_is_left_out():
    assert [record["bbox"] for record, _ in expanded(row(7, 3, [1, 2, 3, 4], iscrowd=1), row(7, 3, [5, 5, 1, 1]))] == [
        [[5, 5, 1, 1]]
    ]


@pytest.mark.parametrize("bad", [3, {}, row(9, 3, []), row(7, 5, []), row([7], 3, [])])
def test_a_row_that_names_no_image_or_category_is_a_bad_record(bad):
    (problem, source), *_ = expanded(bad, row(7, 3, [1, 2, 3, 4]))
    assert isinstance(problem, RecordError) and source == RecordId("c.json", 0)
    assert "names no entry of `images` and `categories`" in str(problem)


@pytest.mark.parametrize("missing", ["images", "categories", "annotations"])
def test_a_file_without_one_of_the_tables_is_refused_by_name(missing):
    document = {"images": IMAGES, "categories": CATEGORIES, "annotations": [row(7, 3, [1, 2, 3, 4])]}
    del document[missing]
    with pytest.raises(ValueError, match=f"^c.json: `{missing}` is null"):
        list(expand({"c.json": document}))
