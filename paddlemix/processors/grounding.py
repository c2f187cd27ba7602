"""Kinds of conventions of boxes, points and quads: how they stand in what is said, and are read from what a model says.

A kind is a class that satisfies `paddlemix.contract.Grounding`; a family has an instance of one, with its own tags.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TypeVar

from paddlemix.contract import GroundedBox, GroundedPoint, GroundedQuad, Piece, PlaceSizes, ShownSize, Written
from paddlemix.conversation import Image, Placed, Quad, RawAnswer, Reference, Text, Turn, Video, goes_round
from paddlemix.processors.coordinates import Thousandths, Units, size_under

_CORNER = r"\(\d{1,6},\s*\d{1,6}\)"
_NUMBER = re.compile(r"\d+")
# How an answer says which of several images it speaks of; the prompt numbers them so.
_MENTION = re.compile(r"(?:picture|image|图片?)\s*(\d+)", re.IGNORECASE)
# Digits from which on a number is that of no image and of no pixel; Python refuses to read some thousands of them.
_LONGEST_NUMBER = 10

GroundedT = TypeVar("GroundedT", GroundedBox, GroundedPoint, GroundedQuad)


@dataclass(frozen=True)
class TaggedPlaces:
    """Each box and point where it is named: `(x1,y1),(x2,y2)` or `(x,y)` between two tags, behind its name.

    The name stands between two tags too, and so do the four corners of a quad. All tags are control tokens.

    Attributes:
        ref: the tags round a name.
        box: the tags round a box's corners, or round a point.
        quad: the tags round a quad's corners.
        units: what the numbers count.

    Source: Bai et al., "Qwen-VL", 2023, arXiv:2308.12966, section 2.2.
    """

    ref: tuple[str, str]
    box: tuple[str, str]
    quad: tuple[str, str]
    units: Units = field(default_factory=Thousandths)

    def write(self, turn: Turn, sizes: PlaceSizes) -> list[Written]:
        """Write a turn, each reference, box, point and quad in its place.

        Args:
            turn: of a conversation.
            sizes: of all images and videos of the conversation.

        Returns:
            Pieces, none of them marked as trained, and the images and videos between them.

        Raises:
            ValueError: a box, a point or a quad lies on what the conversation does not show.
        """
        written: list[Written] = []
        for part in turn.parts:
            if isinstance(part, Text):  # most parts are: they are asked for first, and without a call
                written.append(Piece(part.text))
            else:
                written += self._written(part, sizes)
        return written

    def parse(self, text: str, sizes: Sequence[ShownSize]) -> list[list[GroundedBox]]:
        """Read the boxes of a raw answer; malformed ones are ignored.

        A box lies on the image that was mentioned last before it, as "Picture 2" or "图2", inside a reference or
        outside; before any mention it lies on the last image. Numbers of no image are ignored.

        Args:
            text: as the model wrote it.
            sizes: of the images that it speaks of.

        Returns:
            The boxes of each image, in their order, each with the reference before it.
        """
        return by_image(self._tagged_places(text, sizes), as_box, len(sizes))

    def parse_points(self, text: str, sizes: Sequence[ShownSize]) -> list[list[GroundedPoint]]:
        """Read the points of a raw answer, likewise.

        Args:
            text: as the model wrote it.
            sizes: of the images that it speaks of.

        Returns:
            The points of each image, in their order, each with the reference before it.
        """
        return by_image(self._tagged_places(text, sizes), as_point, len(sizes))

    def parse_quads(self, text: str, sizes: Sequence[ShownSize]) -> list[list[GroundedQuad]]:
        """Read the quads of a raw answer, likewise.

        Args:
            text: as the model wrote it.
            sizes: of the images that it speaks of.

        Returns:
            The quads of each image, in their order, each with the reference before it.
        """
        return by_image(self._tagged_places(text, sizes), as_quad, len(sizes))

    def strip(self, text: str) -> str:
        """Take the tags out of a raw answer; names and corners stay."""
        return self._any_tag.sub("", text).strip()

    def _written(self, part: Image | Video | Reference | Placed | RawAnswer, sizes: PlaceSizes) -> Iterator[Written]:
        if isinstance(part, (Image, Video)):
            yield part
        elif isinstance(part, Reference):
            yield from _tagged(part.text, self.ref)
        elif isinstance(part, RawAnswer):
            yield from self._as_written(part.text)
        else:
            numbers = self.units.count(part, size_under(part, sizes))
            corners = zip(numbers[::2], numbers[1::2], strict=True)
            yield from _tagged(
                ",".join(f"({x},{y})" for x, y in corners), self.quad if isinstance(part, Quad) else self.box
            )

    def _as_written(self, answer: str) -> Iterator[Piece]:
        """Cut a raw answer at its tags, which the model wrote as tokens; whatever else it spells is text."""
        place = 0
        for tag in self._any_tag.finditer(answer):
            yield Piece(answer[place : tag.start()])
            yield Piece(tag[0], control=True)
            place = tag.end()
        yield Piece(answer[place:])

    def _tagged_places(self, text: str, sizes: Sequence[ShownSize]) -> Iterator[tuple[int, str, tuple[float, ...]]]:
        """Find each well-formed box, point or quad: its image, the reference before it, and its corners in pixels."""
        label, shown, place = "", len(sizes) - 1, 0
        # Behind the last end of a name there is no other: every tag that opens one would be followed to the end.
        last = text.rfind(self.ref[1])
        names_end = last + len(self.ref[1]) if last >= 0 else 0
        matches = chain(self._name_or_place.finditer(text, 0, names_end), self._place.finditer(text, names_end))
        for match in matches if sizes else ():
            if match["name"] is not None:
                label = self.strip(match["name"])
                continue
            shown = last_mention(text[place : match.end()], shown, len(sizes))
            place = match.end()
            digits = _NUMBER.findall(match["box"] or match["quad"])
            if any(len(number) >= _LONGEST_NUMBER for number in digits):
                continue  # on no image
            pixels = self.units.in_pixels([int(number) for number in digits], sizes[shown])
            if pixels is not None:
                yield shown, label, pixels

    @cached_property
    def _name_or_place(self) -> re.Pattern[str]:
        ref, ref_end = map(re.escape, self.ref)
        return re.compile(rf"{ref}(?P<name>.*?){ref_end}|{self._corners}", re.DOTALL)

    @cached_property
    def _place(self) -> re.Pattern[str]:
        return re.compile(rf"(?P<name>(?!))|{self._corners}")

    @cached_property
    def _corners(self) -> str:
        box, box_end, quad, quad_end = map(re.escape, (*self.box, *self.quad))
        return (
            rf"{box}\s*(?P<box>{_CORNER}(?:,\s*{_CORNER})?)\s*{box_end}"
            rf"|{quad}\s*(?P<quad>{_CORNER}(?:,\s*{_CORNER}){{3}})\s*{quad_end}"
        )

    @cached_property
    def _any_tag(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, (*self.ref, *self.box, *self.quad))))


def _tagged(text: str, tags: tuple[str, str]) -> tuple[Piece, Piece, Piece]:
    return Piece(tags[0], control=True), Piece(text), Piece(tags[1], control=True)


def by_image(
    places: Iterable[tuple[int, str, Sequence[float]]],
    make: Callable[[str, Sequence[float]], GroundedT | None],
    images: int,
) -> list[list[GroundedT]]:
    """Sort what an answer names by the image that it lies on.

    Args:
        places: the image of each, its reference or "", and its numbers in pixels of the original image.
        make: `as_box`, `as_point` or `as_quad`, which says None of what is none.
        images: how many there are.

    Returns:
        The boxes, the points or the quads of each image, in their order.
    """
    found: list[list[GroundedT]] = [[] for _ in range(images)]
    for image, label, pixels in places:
        one = make(label, pixels)
        if one is not None:
            found[image].append(one)
    return found


def as_box(label: str, pixels: Sequence[float]) -> GroundedBox | None:
    """Take four numbers for a box.

    Args:
        label: its reference, or "".
        pixels: of the original image.

    Returns:
        The box; None where there are not four numbers, or it has no area.
    """
    if len(pixels) != 4:
        return None
    x1, y1, x2, y2 = pixels
    return GroundedBox(label, (x1, y1, x2, y2)) if x1 < x2 and y1 < y2 else None


def as_point(label: str, pixels: Sequence[float]) -> GroundedPoint | None:
    """Take two numbers for a point; see `as_box`."""
    if len(pixels) != 2:
        return None
    x, y = pixels
    return GroundedPoint(label, (x, y))


def as_quad(label: str, pixels: Sequence[float]) -> GroundedQuad | None:
    """Take eight numbers for a quad; see `as_box`."""
    return GroundedQuad(label, tuple(pixels)) if len(pixels) == 8 and goes_round(pixels) else None


def last_mention(text: str, otherwise: int, count: int) -> int:
    """Find which of several images a text mentions last, as "Picture 2", "image 2" or "图2".

    Args:
        text: of an answer.
        otherwise: the index to take where it mentions none.
        count: of the images; numbers of no image are ignored.

    Returns:
        The image's index.
    """
    numbers = [int(number) for number in _MENTION.findall(text) if len(number) < _LONGEST_NUMBER]
    return next((number - 1 for number in reversed(numbers) if 1 <= number <= count), otherwise)
