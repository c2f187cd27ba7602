"""Conversations with pictures inside their text, as Qwen-VL and PaddleMIX write them.

{"id": "7", "conversations": [{"from": "user", "value": "Picture 1: <img>a.jpg</img>\\nWhere is the bus?"},
                              {"from": "assistant", "value": "<ref>bus</ref><box>(178,279),(806,884)</box>"}]}
{"image": "a.jpg", "conversations": [["What is this?", "A bus."], ["Which colour?", "Red."]]}
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from paddlemix.conversation import Conversation, Part, Picture, RecordError, RecordId, Role, Turn
from paddlemix.datasets.formats.format import Format, build_conversation, checked_text, picture_at, require
from paddlemix.datasets.formats.tags import split_tags
from paddlemix.datasets.records import Record, describe

logger = logging.getLogger(__name__)

# A turn's text, cut at its pictures.
Piece = str | Picture

_ROLES: dict[str, Role] = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "system": "system",
}
# Keys of other formats. Passing over them would train, in silence, on a part of the record.
_FOREIGN_KEYS = ("images", "video", "videos", "objects", "history", "system")
_FOREIGN_PLACEHOLDER = "<image>"
# Where the end tag is forgotten, the line's end is taken for it.
_PICTURE = re.compile(r"<img>(?P<path>[^\n]*?)</img>|<img>(?P<unclosed>[^\r\n]*)(?=\r?\n)")
_PICTURE_TAG = re.compile(r"</?img>")


def parse(record: Record, source: RecordId, root: Path) -> Conversation:
    """Make a conversation of one record.

    Pictures stand where `<img>path</img>` does, or, those of the `image` key, before the first user turn's text. All
    other text stays as it was written, `Picture 1: ` and the newline behind a picture included.

    Args:
        record: the record.
        source: where it comes from.
        root: the folder of relative picture paths.

    Returns:
        The turns with their pictures, references and boxes.

    Raises:
        RecordError: the record has another shape.
    """
    _refuse_foreign_keys(record, source)
    texts = _read_turns(require(record, "conversations", list, "a list of turns", source), source)
    turns = [(role, _cut_at_pictures(text, source, root)) for role, text in texts]
    _place_listed_pictures(turns, record.get("image"), source, root)
    return build_conversation(_split_turns(turns, source), source)


FORMAT = Format(parse)


def _refuse_foreign_keys(record: Record, source: RecordId) -> None:
    found = [f"`{key}`" for key in _FOREIGN_KEYS if record.get(key)]
    if found:
        raise RecordError(
            source,
            f"{', '.join(found)} would be passed over; expected pictures in `image` or as `<img>path</img>`, "
            "and a system text as a turn",
        )


def _read_turns(items: list[Any], source: RecordId) -> list[tuple[Role, str]]:
    """Role and text of every turn; `items` are turns, or pairs of a question and its answer."""
    texts: list[tuple[Role, str]] = []
    for number, item in enumerate(items):
        name = f"`conversations[{number}]`"
        if isinstance(item, dict):
            texts.append(_read_turn(item, name, source))
        elif isinstance(item, list) and len(item) == 2 and all(isinstance(text, str) for text in item):
            texts += [("user", item[0]), ("assistant", item[1])]
        else:
            raise RecordError(
                source, f'{name} is {describe(item)}; expected {{"from": ..., "value": ...}} or ["question", "answer"]'
            )
    return texts


def _read_turn(item: Record, name: str, source: RecordId) -> tuple[Role, str]:
    speaker = require(item, "from", str, f"one of {', '.join(_ROLES)}", source, within=name)
    if speaker not in _ROLES:
        raise RecordError(source, f"`from` of {name} is {describe(speaker)}; expected one of {', '.join(_ROLES)}")
    return _ROLES[speaker], require(item, "value", str, "a text", source, within=name)


def _cut_at_pictures(text: str, source: RecordId, root: Path) -> list[Piece]:
    pieces: list[Piece] = []
    position = 0
    for tag in _PICTURE.finditer(text):
        pieces += [text[position : tag.start()], _picture(tag, source, root)]
        position = tag.end()
    pieces.append(text[position:])
    for piece in pieces:
        if isinstance(piece, str) and (stray := _PICTURE_TAG.search(piece)):
            raise RecordError(
                source, f"tag `{stray[0]}` has no partner in {describe(text)}; expected `<img>path</img>`"
            )
    return pieces


def _picture(tag: re.Match[str], source: RecordId, root: Path) -> Picture:
    path = tag["path"]
    if path is None:
        path = tag["unclosed"]
        logger.warning("%s: `<img>%s` is not closed; the line's end is taken for `</img>`", source, path)
    if _PICTURE_TAG.search(path):
        raise RecordError(source, f"`<img>` stands inside the path of another picture: {describe(tag[0])}")
    return picture_at(checked_text(path, "the path in `<img></img>`", source), root)


def _place_listed_pictures(turns: list[tuple[Role, list[Piece]]], value: object, source: RecordId, root: Path) -> None:
    """Put the pictures of the `image` key before the first user turn's text, unless the text shows them itself."""
    listed = _listed_pictures(value, source, root)
    inline = [piece for _, pieces in turns for piece in pieces if isinstance(piece, Picture)]
    if listed and inline and listed != inline:
        raise RecordError(
            source,
            f"`image` is {describe(value)}, but the turns show other pictures: "
            f"{', '.join(picture.path for picture in inline)}; expected the same ones, or only one of the two",
        )
    if listed and not inline:
        _refuse_placeholder(turns, source)
        first_user = next((pieces for role, pieces in turns if role == "user"), [])
        first_user[:0] = listed


def _listed_pictures(value: object, source: RecordId, root: Path) -> list[Picture]:
    paths = [] if value is None else value if isinstance(value, list) else [value]
    return [picture_at(checked_text(path, "a path in `image`", source), root) for path in paths]


def _refuse_placeholder(turns: list[tuple[Role, list[Piece]]], source: RecordId) -> None:
    if any(_FOREIGN_PLACEHOLDER in piece for _, pieces in turns for piece in pieces if isinstance(piece, str)):
        raise RecordError(
            source, f"`{_FOREIGN_PLACEHOLDER}` is not read here; write `<img>path</img>` where the picture stands"
        )


def _split_turns(turns: list[tuple[Role, list[Piece]]], source: RecordId) -> list[Turn]:
    """The turns with their tags read; a box lies on the picture that was shown last before it."""
    shown = 0
    result = []
    for role, pieces in turns:
        parts: list[Part] = []
        for piece in pieces:
            if isinstance(piece, Picture):
                parts.append(piece)
                shown += 1
            else:
                parts += split_tags(piece, max(shown - 1, 0), source)
        result.append(Turn(role, tuple(parts)))
    return result
