"""The boxes of an answer, drawn into files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from paddlemix.files import replacing
from paddlemix.visualization.draw import LabelledBox, draw_boxes

JPEG_QUALITY = 95


def answer_boxes(processor: Any, raw: str, pictures: Sequence[Image.Image]) -> list[list[LabelledBox]]:
    """The boxes of a raw answer on each of the pictures that it is about."""
    found = processor.boxes_by_picture(raw, [picture.size for picture in pictures])
    return [[LabelledBox(one.label, one.box) for one in boxes] for boxes in found]


def save_drawn(picture: Image.Image, boxes: Sequence[LabelledBox], path: Path) -> None:
    """Write a picture with its boxes as JPEG; missing folders are made."""
    with replacing(path) as staged:
        draw_boxes(picture, boxes).save(staged, quality=JPEG_QUALITY)
