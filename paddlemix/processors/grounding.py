"""Kinds of conventions of boxes: how boxes stand in what is said, and how they are read from what a model says.

A kind is a class that satisfies `paddlemix.contract.Grounding`; a family has an instance of one, with its own tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from paddlemix.contract import GroundedBox, Piece, Size, Written
from paddlemix.conversation import Box, Image, Part, RawAnswer, Reference, Text, Turn, Video

_POINT = r"\((?P<x{0}>\d{{1,4}}),\s*(?P<y{0}>\d{{1,4}})\)"
# How an answer says which of several images it speaks of; the prompt numbers them so.
_MENTION = re.compile(r"(?:picture|image|图片?)\s*(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class TaggedThousandths:
    """Each box where it is named: `(x1,y1),(x2,y2)` between two tags, behind the name it belongs to.

    Corners are thousandths of the image's width and height, whole numbers in 0..999. The name stands between two tags
    too. All tags are control tokens.

    Attributes:
        ref: the tags round a name.
        box: the tags round a box's corners.

    Source: Bai et al., "Qwen-VL", 2023, arXiv:2308.12966, section 2.2.
    """

    ref: tuple[str, str]
    box: tuple[str, str]

    def write(self, turn: Turn, sizes: Sequence[Size]) -> list[Written]:
        """Write a turn, each reference and box in its place.

        Args:
            turn: of a conversation.
            sizes: of all images of the conversation.

        Returns:
            Pieces, none of them marked as trained, and the images and videos between them.

        Raises:
            ValueError: a box lies on an image that the conversation does not show.
        """
        return [written for part in turn.parts for written in self._written(part, sizes)]

    def parse(self, text: str, sizes: Sequence[Size]) -> list[list[GroundedBox]]:
        """Read the boxes of a raw answer; malformed ones are ignored.

        A box lies on the image that was mentioned last before it, as "Picture 2" or "图2", inside a reference or
        outside; before any mention it lies on the last image. Numbers of no image are ignored.

        Args:
            text: as the model wrote it.
            sizes: of the images that it speaks of.

        Returns:
            The boxes of each image, in their order, each with the reference before it.
        """
        found: list[list[GroundedBox]] = [[] for _ in sizes]
        shown, place = len(sizes) - 1, 0
        for end, label, box in self._tagged_boxes(text) if sizes else ():
            shown = last_mention(text[place:end], shown, len(sizes))
            found[shown].append(GroundedBox(label, box.in_pixels(*sizes[shown])))
            place = end
        return found

    def strip(self, text: str) -> str:
        """Take the tags out of a raw answer; names and corners stay."""
        return self._any_tag.sub("", text).strip()

    def _written(self, part: Part, sizes: Sequence[Size]) -> Iterator[Written]:
        if isinstance(part, (Image, Video)):
            yield part
        elif isinstance(part, Text):
            yield Piece(part.text)
        elif isinstance(part, Reference):
            yield from _tagged(part.text, self.ref)
        elif isinstance(part, RawAnswer):
            yield from self._as_written(part.text)
        else:
            check_image(part, sizes)
            yield from _tagged(_corners(part, sizes[part.image]), self.box)

    def _as_written(self, answer: str) -> Iterator[Piece]:
        """Cut a raw answer at its tags, which the model wrote as tokens; whatever else it spells is text."""
        place = 0
        for tag in self._any_tag.finditer(answer):
            yield Piece(answer[place : tag.start()])
            yield Piece(tag[0], control=True)
            place = tag.end()
        yield Piece(answer[place:])

    def _tagged_boxes(self, text: str) -> Iterator[tuple[int, str, Box]]:
        """Find each well-formed box: where it ends in the text, the reference before it, and the box."""
        label = ""
        for match in self._name_or_box.finditer(text):
            if match["name"] is not None:
                label = self.strip(match["name"])
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


def check_image(box: Box, sizes: Sequence[Size]) -> None:
    """Refuse a box on an image that is not shown.

    Args:
        box: of a conversation.
        sizes: of the conversation's images.

    Raises:
        ValueError: there is no such image.
    """
    if not 0 <= box.image < len(sizes):
        raise ValueError(f"a box lies on image {box.image}, but there are {len(sizes)} images.")


def _tagged(text: str, tags: tuple[str, str]) -> tuple[Piece, Piece, Piece]:
    return Piece(tags[0], control=True), Piece(text), Piece(tags[1], control=True)


def _corners(box: Box, size: Size) -> str:
    """Write a box such as "(178,279),(806,884)"; edges outside the image are clipped to what a model can say."""
    x1, y1, x2, y2 = (min(max(round(1000 * value), 0), 999) for value in box.in_fractions(*size))
    return f"({x1},{y1}),({x2},{y2})"


def last_mention(text: str, otherwise: int, count: int) -> int:
    """Find which of several images a text mentions last, as "Picture 2", "image 2" or "图2".

    Args:
        text: of an answer.
        otherwise: the index to take where it mentions none.
        count: of the images; numbers of no image are ignored.

    Returns:
        The image's index.
    """
    numbers = [int(number) for number in _MENTION.findall(text)]
    return next((number - 1 for number in reversed(numbers) if 1 <= number <= count), otherwise)
