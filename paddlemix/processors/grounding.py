"""Boxes in the text of Qwen's models: written from an image's pixels, and read back from what a model says.

A box is `(x1,y1),(x2,y2)` between two tags, in thousandths of the image's width and height, and follows the name it
belongs to, which stands between two tags too. Qwen2-VL's tags are `<|box_start|>`, `<|object_ref_start|>` and their
ends; Qwen-VL's are in `qwen_tags.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from paddlemix.contract import GroundedBox
from paddlemix.conversation import Box

REF_START, REF_END = "<|object_ref_start|>", "<|object_ref_end|>"
BOX_START, BOX_END = "<|box_start|>", "<|box_end|>"

_POINT = r"\((?P<x{0}>\d{{1,4}}),\s*(?P<y{0}>\d{{1,4}})\)"
# How an answer says which of several images it speaks of; the prompt numbers them so.
_MENTION = re.compile(r"(?:picture|image|图片?)\s*(\d+)", re.IGNORECASE)


def box_text(box: Box, width: int, height: int) -> str:
    """The box's corners as the model writes them, integers in 0..999.

    Args:
        box: in any unit.
        width: pixels of the original image.
        height: pixels of the original image.

    Returns:
        Such as "(178,279),(806,884)".
    """
    x1, y1, x2, y2 = (min(max(round(1000 * value), 0), 999) for value in _fractions(box, width, height))
    return f"({x1},{y1}),({x2},{y2})"


def box_in_pixels(box: Box, width: int, height: int) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 in pixels of the original image of `width` x `height`."""
    x1, y1, x2, y2 = _fractions(box, width, height)
    return x1 * width, y1 * height, x2 * width, y2 * height


@dataclass(frozen=True)
class BoxTags:
    """How a model family writes names and boxes, and the reading of its answers.

    Attributes:
        ref: the tags round a name.
        box: the tags round a box's corners.
    """

    ref: tuple[str, str]
    box: tuple[str, str]

    def parse_boxes(self, text: str, width: int, height: int) -> list[GroundedBox]:
        """Read the boxes of a model's raw answer; malformed ones are left as text.

        Args:
            text: with the model's tags.
            width: pixels of the original image.
            height: pixels of the original image.

        Returns:
            The boxes in their order, each with the reference before it.
        """
        return [GroundedBox(label, box_in_pixels(box, width, height)) for _, label, box in self._tagged_boxes(text)]

    def boxes_by_image(self, text: str, sizes: Sequence[tuple[int, int]]) -> list[list[GroundedBox]]:
        """Read the boxes of a model's raw answer about several images.

        A box lies on the image that was mentioned last before it, as "Picture 2" or "图2", inside a reference or
        outside; before any mention it lies on the last image. Numbers of no image are passed over.

        Args:
            text: with the model's tags.
            sizes: width and height in pixels of each original image.

        Returns:
            The boxes of each image, in their order.
        """
        found: list[list[GroundedBox]] = [[] for _ in sizes]
        shown, place = len(sizes) - 1, 0
        for end, label, box in self._tagged_boxes(text):
            shown = _last_mention(text[place:end], shown, len(sizes))
            found[shown].append(GroundedBox(label, box_in_pixels(box, *sizes[shown])))
            place = end
        return found

    def strip_tags(self, text: str) -> str:
        """The answer as a person reads it: references keep their names, the tags go."""
        return self._any_tag.sub("", text).strip()

    def _tagged_boxes(self, text: str) -> Iterator[tuple[int, str, Box]]:
        """Where each well-formed box ends in the text, the reference before it, and the box in thousandths."""
        label = ""
        for match in self._name_or_box.finditer(text):
            if match["name"] is not None:
                label = self.strip_tags(match["name"])
                continue
            x1, y1, x2, y2 = (int(match[name]) for name in ("x1", "y1", "x2", "y2"))
            if max(x2, y2) <= 1000 and x1 < x2 and y1 < y2:
                yield match.end(), label, Box(x1, y1, x2, y2, unit="thousandth")

    @cached_property
    def _name_or_box(self) -> re.Pattern[str]:
        ref, ref_end, box, box_end = map(re.escape, (*self.ref, *self.box))
        corners = _POINT.format(1) + r",\s*" + _POINT.format(2)
        return re.compile(rf"{ref}(?P<name>.*?){ref_end}|{box}\s*{corners}\s*{box_end}", re.DOTALL)

    @cached_property
    def _any_tag(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, (*self.ref, *self.box))))


QWEN2_VL_TAGS = BoxTags(ref=(REF_START, REF_END), box=(BOX_START, BOX_END))


def _last_mention(text: str, otherwise: int, count: int) -> int:
    """The index of the image that `text` mentions last, of `count`."""
    numbers = [int(number) for number in _MENTION.findall(text)]
    return next((number - 1 for number in reversed(numbers) if 1 <= number <= count), otherwise)


def _fractions(box: Box, width: int, height: int) -> tuple[float, float, float, float]:
    scale_x, scale_y = {"pixel": (width, height), "thousandth": (1000, 1000), "fraction": (1, 1)}[box.unit]
    return box.x1 / scale_x, box.y1 / scale_y, box.x2 / scale_x, box.y2 / scale_y
