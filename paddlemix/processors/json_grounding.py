"""Boxes and points in JSON, all of a turn in one list.

[{"bbox_2d": [x1, y1, x2, y2], "label": "bus"}, {"point_2d": [x, y], "label": "its door"}]
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from paddlemix.contract import GroundedBox, GroundedPoint, GroundedQuad, Piece, PlaceSizes, ShownSize, Written
from paddlemix.conversation import Image, Part, Placed, Point, Quad, Reference, Text, Turn, Video
from paddlemix.processors.coordinates import Units, size_under
from paddlemix.processors.grounding import as_box, as_point, by_image, last_mention

BOX_KEY, POINT_KEY, LABEL_KEY = "bbox_2d", "point_2d", "label"
# What stands between the boxes of an answer that consists of nothing else, and is no part of a list.
_SEPARATORS = re.compile(r"[\s,;，；、]*")
# A fence round JSON; that of an answer which breaks off is not closed.
_FENCED = re.compile(r"```(?:json)?\s*(?P<json>[\[{].*?)(?:```|\Z)", re.DOTALL)
# An object that may hold others, which hold none. No character fits two branches, and none outside a string is a
# backslash: so a stretch of text is read from at most a few braces before it, and time grows with the text alone.
_LOOSE = r'[^{}"\\]*'
_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_INNERMOST = rf"\{{{_LOOSE}(?:{_STRING}{_LOOSE})*\}}"
_OBJECT = re.compile(rf"\{{{_LOOSE}(?:(?:{_STRING}|{_INNERMOST}){_LOOSE})*\}}", re.DOTALL)
# No image has a side as long: what lies beyond is no coordinate.
_LARGEST = 1e12


@dataclass(frozen=True)
class JsonPlaces:
    """Boxes and points of an assistant's turn in one list behind its words, which keep the names.

    An entry of the list does not say which image it lies on. So where those of a turn lie on several images, there is a
    list whenever the image changes, behind the words that lead to it, such as "Picture 2: ". In a user's turn, which
    asks about boxes and points, each stands where it is asked about, as `[x1, y1, x2, y2]` or `[x, y]`. There is no
    published form of quads.

    Attributes:
        units: what the numbers count.

    Source: Bai et al., "Qwen2.5-VL Technical Report", 2025, arXiv:2502.13923, section 2.2.1.
    """

    units: Units

    def write(self, turn: Turn, sizes: PlaceSizes) -> list[Written]:
        """Write a turn.

        Args:
            turn: of a conversation.
            sizes: of all images and videos of the conversation.

        Returns:
            Pieces, none of them marked as trained, and the images and videos between them.

        Raises:
            ValueError: a box or a point lies on what the conversation does not show, or there is a quad.
        """
        if turn.role != "assistant":
            return [self._inline(part, sizes) for part in turn.parts]
        written: list[Written] = []
        for stretch in _stretches(turn.parts):
            if not stretch.is_list:
                written += (self._inline(part, sizes) for part in stretch.words)
            if stretch.placed:
                listed = json.dumps([self._entry(*one, sizes) for one in stretch.placed], ensure_ascii=False)
                written.append(Piece(f"\n{listed}" if written else listed))
        return written

    def parse(self, text: str, sizes: Sequence[ShownSize]) -> list[list[GroundedBox]]:
        """Read the boxes of a raw answer, in lists, in fences or alone; malformed ones are ignored.

        A box lies on the image that its label mentions, as "Picture 2" or "图2", or else on the one that was mentioned
        last before its object, or else on the last one.

        Args:
            text: as the model wrote it; it may break off in the middle, and what has no end is ignored.
            sizes: of the images that it speaks of.

        Returns:
            The boxes of each image, in their order; edges outside an image are clipped.
        """
        return by_image(self._places(text, BOX_KEY, sizes), as_box, len(sizes))

    def parse_points(self, text: str, sizes: Sequence[ShownSize]) -> list[list[GroundedPoint]]:
        """Read the points of a raw answer, likewise.

        Args:
            text: as the model wrote it.
            sizes: of the images that it speaks of.

        Returns:
            The points of each image, in their order.
        """
        return by_image(self._places(text, POINT_KEY, sizes), as_point, len(sizes))

    def parse_quads(self, text: str, sizes: Sequence[ShownSize]) -> list[list[GroundedQuad]]:
        """Find no quads: they have no form in JSON."""
        del text
        return [[] for _ in sizes]

    def strip(self, text: str) -> str:
        """Take the fences from the JSON of a raw answer; the list is what a person reads."""
        return _FENCED.sub(lambda match: match["json"].rstrip(), text).strip()

    def _places(self, text: str, key: str, sizes: Sequence[ShownSize]) -> Iterator[tuple[int, str, tuple[float, ...]]]:
        """Find the numbers that stand under a key: their image, their label, and the pixels that they mean."""
        for image, label, entry in _entries(text, len(sizes)):
            numbers = entry.get(key)
            if isinstance(numbers, list) and all(map(_is_number, numbers)):
                pixels = self.units.in_pixels(numbers, sizes[image])
                if pixels is not None:
                    yield image, label, pixels

    def _inline(self, part: Part, sizes: PlaceSizes) -> Written:
        if isinstance(part, (Image, Video)):
            return part
        if isinstance(part, Placed):
            return Piece(json.dumps(self._counted(part, sizes)))
        return Piece(part.text)

    def _entry(self, label: str, placed: Placed, sizes: PlaceSizes) -> dict[str, Any]:
        key = POINT_KEY if isinstance(placed, Point) else BOX_KEY
        entry: dict[str, Any] = {key: self._counted(placed, sizes)}
        return {**entry, LABEL_KEY: label} if label else entry

    def _counted(self, placed: Placed, sizes: PlaceSizes) -> list[int]:
        if isinstance(placed, Quad):
            raise ValueError(
                'a quad has no form in JSON that was published; give the box around it, or set `grounding` to "tagged".'
            )
        return self.units.count(placed, size_under(placed, sizes))


@dataclass
class _Stretch:
    """Words of a turn, and boxes and points between them, all on one image or video, each with the name before it."""

    words: list[Part] = field(default_factory=list)
    placed: list[tuple[str, Placed]] = field(default_factory=list)

    @property
    def is_list(self) -> bool:
        """Whether nothing is said but what the list says too."""
        labels = {label for label, _ in self.placed}
        return bool(labels) and all(
            part.text in labels if isinstance(part, Reference) else _is_separator(part) for part in self.words
        )


def _stretches(parts: Sequence[Part]) -> list[_Stretch]:
    """Cut a turn behind the last box or point before one on another image."""
    stretches, waiting, label = [_Stretch()], list[Part](), ""
    for part in parts:
        if not isinstance(part, Placed):
            waiting.append(part)
            label = part.text if isinstance(part, Reference) else label
            continue
        if stretches[-1].placed and _shown(stretches[-1].placed[-1][1]) != _shown(part):
            stretches.append(_Stretch())
        stretches[-1].words += waiting
        stretches[-1].placed.append((label, part))
        waiting = []
    stretches[-1].words += waiting
    return stretches


def _shown(placed: Placed) -> tuple[int, int | None]:
    """Tell what something lies on."""
    return placed.image, placed.video


def _is_separator(part: Part) -> bool:
    return isinstance(part, Text) and _SEPARATORS.fullmatch(part.text) is not None


def _is_number(value: Any) -> bool:
    # Asked this way round, NaN is refused too, and no whole number is too large to be compared.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LARGEST


def _entries(text: str, images: int) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Find the objects of an answer about so many images: the image of each, its label, and the object."""
    shown, place = images - 1, 0
    for start, end, entries in _objects(text) if images else ():
        shown = last_mention(text[place:start], shown, images)
        place = end
        for entry in entries:
            label = entry.get(LABEL_KEY)
            label = label if isinstance(label, str) else ""
            yield last_mention(label, shown, images), label, entry


def _objects(text: str) -> Iterator[tuple[int, int, list[dict[str, Any]]]]:
    """Find every JSON object that is whole, whatever stands round it: where it begins and ends, and all objects in it.

    An object that holds objects which hold others is not read as one; those inside are.
    """
    match = _OBJECT.search(text)
    while match:
        entries: list[dict[str, Any]] = []
        place = match.end()
        try:
            json.loads(match[0], strict=False, object_hook=entries.append)
        except (ValueError, RecursionError):  # ValueError: no JSON, or a whole number of thousands of digits
            place = match.start() + 1
        else:
            yield match.start(), match.end(), entries
        match = _OBJECT.search(text, place)
