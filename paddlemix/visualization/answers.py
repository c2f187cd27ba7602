"""The boxes and points of an answer, drawn into files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from paddlemix.contract import Grounding, Size
from paddlemix.files import replacing
from paddlemix.visualization.draw import Labelled, LabelledBox, LabelledPoint, draw_boxes

JPEG_QUALITY = 95


def answer_boxes(grounding: Grounding, raw: str, sizes: Sequence[Size]) -> list[list[Labelled]]:
    """Read the boxes and points of a raw answer on each of the images that it is about.

    Args:
        grounding: the convention of the model's family.
        raw: the answer, tags and all.
        sizes: of the images as they were before any resizing.

    Returns:
        What is to be drawn on each image, its boxes first.
    """
    found = zip(grounding.parse(raw, sizes), grounding.parse_points(raw, sizes), strict=True)
    return [
        [
            *(LabelledBox(one.label, one.box) for one in boxes),
            *(LabelledPoint(one.label, one.point) for one in points),
        ]
        for boxes, points in found
    ]


def save_drawn(image: Image.Image, boxes: Sequence[Labelled], path: Path) -> None:
    """Write an image with its boxes and points as JPEG; missing folders are made."""
    with replacing(path) as staged:
        draw_boxes(image, boxes).save(staged, quality=JPEG_QUALITY)
