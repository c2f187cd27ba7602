"""The boxes of an answer, drawn into files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from paddlemix.contract import Processor
from paddlemix.files import replacing
from paddlemix.visualization.draw import LabelledBox, draw_boxes

JPEG_QUALITY = 95


def answer_boxes(processor: Processor, raw: str, images: Sequence[Image.Image]) -> list[list[LabelledBox]]:
    """Read the boxes of a raw answer on each of the images that it is about.

    Args:
        processor: of the model's family.
        raw: the answer, tags and all.
        images: as they were before any resizing.

    Returns:
        The boxes of each image, to be drawn.
    """
    found = processor.grounding.parse(raw, [image.size for image in images])
    return [[LabelledBox(one.label, one.box) for one in boxes] for boxes in found]


def save_drawn(image: Image.Image, boxes: Sequence[LabelledBox], path: Path) -> None:
    """Write an image with its boxes as JPEG; missing folders are made."""
    with replacing(path) as staged:
        draw_boxes(image, boxes).save(staged, quality=JPEG_QUALITY)
