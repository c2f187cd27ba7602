"""The boxes, points and quads of an answer, drawn into files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from paddlemix.contract import Grounding, ShownSize
from paddlemix.files import replacing
from paddlemix.visualization.draw import Labelled, LabelledBox, LabelledPoint, LabelledQuad, draw_boxes

JPEG_QUALITY = 95


def answer_boxes(grounding: Grounding, raw: str, sizes: Sequence[ShownSize]) -> list[list[Labelled]]:
    """Read the boxes, points and quads of a raw answer on each of the images that it is about.

    Args:
        grounding: the convention of the model's family.
        raw: the answer, tags and all.
        sizes: of the images.

    Returns:
        What is to be drawn on each image, its boxes first.
    """
    kinds = (grounding.parse(raw, sizes), grounding.parse_points(raw, sizes), grounding.parse_quads(raw, sizes))
    return [
        [
            *(LabelledBox(one.label, one.box) for one in boxes),
            *(LabelledPoint(one.label, one.point) for one in points),
            *(LabelledQuad(one.label, one.corners) for one in quads),
        ]
        for boxes, points, quads in zip(*kinds, strict=True)
    ]


def save_drawn(image: Image.Image, boxes: Sequence[Labelled], path: Path) -> None:
    """Write an image with its boxes, points and quads as JPEG; missing folders are made."""
    with replacing(path) as staged:
        draw_boxes(image, boxes).save(staged, quality=JPEG_QUALITY)
