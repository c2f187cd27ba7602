"""A turn on its way from text to parts: texts that are not read yet, parts that are known, and slots between them.

A slot is a place where something is shown that the record lists elsewhere: a placeholder such as `<image>` in a text,
or a part that says no more than its type.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from paddlemix.conversation import Part

IMAGE, VIDEO, BOX, NAME = "<image>", "<video>", "<bbox>", "<ref-object>"
_MEDIA = (IMAGE, VIDEO)
# Other spellings of the first two. What stands round Qwen2-VL's own placeholder belongs to it.
_OTHER = re.compile(
    r"(?:<\|vision_start\|>)?<\|(?P<pad>image|video)_pad\|>(?:<\|vision_end\|>)?"
    r"|<\|?(?P<kind>image|img|picture|video)[ _-]?(?P<number>\d{0,6})(?:[ _]?here)?\|?>",
    re.IGNORECASE,
)


class Slot(NamedTuple):
    """A place where something is shown that is listed elsewhere.

    Attributes:
        tag: what is shown: an image, a video, a box or a name.
        number: which of them, as its placeholder counts; None means the next one.
        spelled: the placeholder as it was written.
    """

    tag: str
    number: int | None = None
    spelled: str = ""


Piece = str | Part | Slot


def cut_at(text: str, tags: Sequence[str]) -> list[Piece]:
    """Cut a text at its placeholders; one behind a backslash is text, without the backslash.

    Args:
        text: what is said.
        tags: the placeholders.

    Returns:
        Texts and slots in turns, a text first and last; each of them may be blank.
    """
    pieces: list[Piece] = []
    stretch: list[str] = []
    position = 0
    for found in _pattern(tuple(tags)).finditer(text):
        stretch.append(text[position : found.start()])
        position = found.end()
        if found[0][0] == "\\":
            stretch.append(found[0][1:])
        else:
            pieces += ["".join(stretch), Slot(found[0], spelled=found[0])]
            stretch = []
    return [*pieces, "".join((*stretch, text[position:]))]


def cut_at_other_spellings(text: str) -> list[Piece]:
    """Cut a text at other spellings of `<image>` and `<video>`; see `cut_at`."""
    pieces: list[Piece] = []
    position = 0
    for found in _OTHER.finditer(text):
        kind = (found["pad"] or found["kind"]).lower()
        number = int(found["number"]) if found["number"] else None
        pieces += [text[position : found.start()], Slot(VIDEO if kind == "video" else IMAGE, number, found[0])]
        position = found.end()
    return [*pieces, text[position:]]


def other_spellings(text: str) -> list[str]:
    """Find other spellings of `<image>` and `<video>` in a text, as they are written."""
    return [found[0] for found in _OTHER.finditer(text) if found[0] not in _MEDIA]


@lru_cache(maxsize=256)
def _pattern(tags: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(r"\\?(?:" + "|".join(map(re.escape, tags)) + ")")
