"""What looks like a placeholder, a box or a control token in a text and stays text: it is told, not changed."""

from __future__ import annotations

import re
from collections.abc import Iterable

from paddlemix.conversation import Part, Text
from paddlemix.datasets.reading.context import Reading
from paddlemix.datasets.reading.slots.placeholders import IMAGE, VIDEO, other_spellings
from paddlemix.datasets.reading.turns import Said

_CONTROL = re.compile(r"<\|\w{1,40}\|>")
# What reads as a placeholder of a box or a name, or as a box, where it was not taken for one.
_PLACED = re.compile(r"<bbox>|<ref-object>|<box>(?=\s*\()|<quad>(?=\s*\()|<\|box_start\|>(?=\s*\()")
_DIGITS = re.compile(r"\d+")
_BOXES_KEY = (
    "boxes are read where the record has an image, and lists them in `objects` or its format has such tags; set "
    "`markup` of the set to true if it is one"
)
_PLACEHOLDERS_KEY = 'set `placeholders` of the set to "any" if it shows an image or video'
_CONTROL_KEY = "set `allow_control_tokens` to true if it is meant as one"


def note_unread(parts: Iterable[Part], said: Said, reading: Reading) -> None:
    """Note what the texts of a turn hold that nobody reads.

    Numbers in it are noted as 1, so that those of many records are counted together.

    Args:
        parts: that the turn's texts were read as.
        said: the turn. An answer shows nothing, so that `<Image>` in it is a word.
        reading: of the record.
    """
    for text in (part.text for part in parts if isinstance(part, Text) and "<" in part.text):
        for spelled in other_spellings(text) if said.role != "assistant" else ():
            name = _DIGITS.sub("1", spelled)
            reading.note(f"`{name}` in a text is no placeholder and stays text; {_PLACEHOLDERS_KEY}")
        for tag in _PLACED.findall(text):
            reading.note(f"`{tag}` in a text stays text: {_BOXES_KEY}")
        for token in _CONTROL.findall(text):
            name = _DIGITS.sub("1", token)
            reading.note(
                f"`{name}` in a text stays text, unless it is a token that the checkpoint has added; {_CONTROL_KEY}"
            )


def note_unused_placeholders(text: str, reading: Reading) -> None:
    """Note `<image>` and `<video>` in a turn that shows images of its own, while the record lists none.

    Args:
        text: of the turn.
        reading: of the record.
    """
    for tag in (IMAGE, VIDEO):
        if tag in text.replace(f"\\{tag}", ""):
            reading.note(f"`{tag}` in a text beside images that the turn shows itself stays text; remove it there")
