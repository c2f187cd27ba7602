"""Boxes in JSON, all of a turn in one list: `[{"bbox_2d": [x1, y1, x2, y2], "label": "bus"}]`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from paddlemix.contract import GroundedBox, Piece, Size, Written
from paddlemix.conversation import Box, Image, Part, Reference, Text, Turn, Video
from paddlemix.processors.grounding import check_image, last_mention

BOX_KEY, LABEL_KEY = "bbox_2d", "label"
# What stands between the boxes of an answer that consists of nothing else, and is no part of a list.
_SEPARATORS = re.compile(r"[\s,;，；、]*")
_FENCE = re.compile(r"```(?:json)?[ \t]*\n?|\n?```")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class JsonBoxes:
    """Boxes of an assistant's turn in one list behind its words, which keep the names; corners are whole numbers.

    In a user's turn, which asks about boxes, each stands where it is asked about, as `[x1, y1, x2, y2]`.

    Attributes:
        scale: the size in whose units an image's corners are counted, such as that which the model sees it in.

    Source: Bai et al., "Qwen2.5-VL Technical Report", 2025, arXiv:2502.13923, section 2.2.1.
    """

    scale: Callable[[Size], Size]

    def write(self, turn: Turn, sizes: Sequence[Size]) -> list[Written]:
        """Write a turn.

        Args:
            turn: of a conversation.
            sizes: of all images of the conversation.

        Returns:
            Pieces, none of them marked as trained, and the images and videos between them.

        Raises:
            ValueError: a box lies on an image that the conversation does not show.
        """
        if turn.role != "assistant":
            return [self._inline(part, sizes) for part in turn.parts]
        boxes = list(_labelled(turn.parts))
        if not boxes:
            return [self._inline(part, sizes) for part in turn.parts]
        listed = json.dumps([self._entry(label, box, sizes) for label, box in boxes], ensure_ascii=False)
        words = [part for part in turn.parts if not isinstance(part, Box)]
        if all(isinstance(part, Reference) or _is_separator(part) for part in words):
            return [Piece(listed)]
        return [*(self._inline(part, sizes) for part in words), Piece(f"\n{listed}")]

    def parse(self, text: str, sizes: Sequence[Size]) -> list[list[GroundedBox]]:
        """Read the boxes of a raw answer, in lists, in fences or alone; malformed ones are ignored.

        A box lies on the image that was mentioned last before it, as "Picture 2" or "图2", or else on the last one.

        Args:
            text: as the model wrote it; it may break off in the middle.
            sizes: of the images that it speaks of.

        Returns:
            The boxes of each image, in their order.
        """
        found: list[list[GroundedBox]] = [[] for _ in sizes]
        shown, place = len(sizes) - 1, 0
        for start, end, entry in _objects(text) if sizes else ():
            shown = last_mention(text[place:start], shown, len(sizes))
            place = end
            if (box := self._read(entry.get(BOX_KEY), sizes[shown])) is not None:
                found[shown].append(GroundedBox(str(entry.get(LABEL_KEY, "")), box))
        return found

    def strip(self, text: str) -> str:
        """Take the fences of code from a raw answer; the list is what a person reads."""
        return _FENCE.sub("", text).strip()

    def _inline(self, part: Part, sizes: Sequence[Size]) -> Written:
        if isinstance(part, (Image, Video)):
            return part
        if isinstance(part, Box):
            return Piece(json.dumps(self._corners(part, sizes)))
        return Piece(part.text)

    def _entry(self, label: str, box: Box, sizes: Sequence[Size]) -> dict[str, Any]:
        entry: dict[str, Any] = {BOX_KEY: self._corners(box, sizes)}
        return {**entry, LABEL_KEY: label} if label else entry

    def _corners(self, box: Box, sizes: Sequence[Size]) -> list[int]:
        """Count a box's corners in the units of its image; edges outside the image are clipped."""
        check_image(box, sizes)
        size = sizes[box.image]
        ends = self.scale(size) * 2
        return [min(max(round(value * end), 0), end) for value, end in zip(box.in_fractions(*size), ends, strict=True)]

    def _read(self, corners: Any, size: Size) -> tuple[float, float, float, float] | None:
        """Turn four numbers into pixels of the original image; None where they are no box."""
        if not isinstance(corners, list) or len(corners) != 4 or not all(map(_is_number, corners)):
            return None
        ends = self.scale(size) * 2
        x1, y1, x2, y2 = (
            min(max(value / end, 0.0), 1.0) * pixels for value, end, pixels in zip(corners, ends, size * 2, strict=True)
        )
        return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _labelled(parts: Sequence[Part]) -> Iterator[tuple[str, Box]]:
    """Find every box with the reference before it; words between them end the reference's reach."""
    label = ""
    for part in parts:
        if isinstance(part, Reference):
            label = part.text
        elif isinstance(part, Box):
            yield label, part
        elif not _is_separator(part):
            label = ""


def _is_separator(part: Part) -> bool:
    return isinstance(part, Text) and _SEPARATORS.fullmatch(part.text) is not None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _objects(text: str) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Find every JSON object that is whole, whatever stands round it: where it begins and ends, and the object."""
    place = text.find("{")
    while place >= 0:
        try:
            entry, end = _DECODER.raw_decode(text, place)
        except (json.JSONDecodeError, RecursionError):
            end = place + 1
        else:
            yield place, end, entry
        place = text.find("{", end)
