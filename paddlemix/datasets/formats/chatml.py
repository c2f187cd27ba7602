"""Conversations with images and videos inside their text, as Qwen-VL and PaddleMIX write them.

{"id": "7", "conversations": [{"from": "user", "value": "Picture 1: <img>a.jpg</img>\\nWhere is the bus?"},
                              {"from": "assistant", "value": "<ref>bus</ref><box>(178,279),(806,884)</box>"}]}
{"image": "a.jpg", "conversations": [["What is this?", "A bus."], ["Which colour?", "Red."]]}
{"conversations": [["<video>a.mp4</video>What happens?", "A bus leaves."],
                   ["<video>["1.jpg", "2.jpg"]</video>And in these frames?", "It stops."]]}
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import orjson

from paddlemix.conversation import Conversation, Image, RecordError, RecordId, Role, Video
from paddlemix.datasets.formats.format import Format, build_conversation, checked_text, image_at, require, resolved
from paddlemix.datasets.formats.pieces import split_turns
from paddlemix.datasets.formats.turns import ROLES
from paddlemix.datasets.records.json_files import Record, describe

logger = logging.getLogger(__name__)

# A turn's text, cut at its images and videos.
Piece = str | Image | Video

# Keys of other formats. Ignoring them would silently train on a part of the record.
_FOREIGN_KEYS = ("images", "video", "videos", "objects", "history", "system")
_FOREIGN_PLACEHOLDER = "<image>"
_SHOWN_IMAGES, _SHOWN_CHARACTERS = 3, 200
# Where an image's end tag is forgotten, the line's end is taken for it.
_MEDIA = re.compile(
    r"<img>(?P<path>[^\n]*?)</img>|<img>(?P<unclosed>[^\r\n]*)(?=\r?\n)|<video>(?P<video>[^\n]*?)</video>"
)
_MEDIA_TAG = re.compile(r"</?(?:img|video)>")
_TAG_OR_LINE_END = re.compile(r"<(?P<opened>img|video)>|</(?:img|video)>|\n")


def parse(record: Record, source: RecordId, root: Path) -> Conversation:
    """Make a conversation of one record.

    Images stand where `<img>path</img>` does, or, those of the `image` key, before the first user turn's text. Videos
    stand where `<video>path</video>` does; a JSON list in place of the path names the files of the frames. All other
    text stays as it was written, `Picture 1: ` and the newline after an image included.

    Args:
        record: the record.
        source: where it comes from.
        root: the folder of relative image paths.

    Returns:
        The turns with their images, videos, references and boxes.

    Raises:
        RecordError: the record has another shape.
    """
    _refuse_foreign_keys(record, source)
    texts = _read_turns(require(record, "conversations", list, "a list of turns", source), source)
    turns = [(role, _cut_at_media(text, source, root)) for role, text in texts]
    _place_listed_images(turns, record.get("image"), source, root)
    return build_conversation(split_turns(turns, source), source)


FORMAT = Format(parse)


def _refuse_foreign_keys(record: Record, source: RecordId) -> None:
    found = [f"`{key}`" for key in _FOREIGN_KEYS if record.get(key)]
    if found:
        raise RecordError(
            source,
            f"{', '.join(found)} would be ignored; expected images in `image` or as `<img>path</img>`, "
            "videos as `<video>path</video>`, and a system text as a turn",
        )


def _read_turns(items: list[Any], source: RecordId) -> list[tuple[Role, str]]:
    """Read role and text of every turn; `items` are turns, or pairs of a question and its answer."""
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
    speaker = require(item, "from", str, f"one of {', '.join(ROLES)}", source, within=name)
    if speaker not in ROLES:
        raise RecordError(source, f"`from` of {name} is {describe(speaker)}; expected one of {', '.join(ROLES)}")
    return ROLES[speaker], require(item, "value", str, "a text", source, within=name)


def _cut_at_media(text: str, source: RecordId, root: Path) -> list[Piece]:
    _refuse_opened_twice(text, source)
    pieces: list[Piece] = []
    position = 0
    for tag in _MEDIA.finditer(text):
        medium = _image(tag, source, root) if tag["video"] is None else _video(tag, source, root)
        pieces += [text[position : tag.start()], medium]
        position = tag.end()
    pieces.append(text[position:])
    for piece in pieces:
        if isinstance(piece, str) and (stray := _MEDIA_TAG.search(piece)):
            name = stray[0].strip("</>")
            raise RecordError(
                source, f"tag `{stray[0]}` has no partner in {describe(text)}; expected `<{name}>path</{name}>`"
            )
    return pieces


def _refuse_opened_twice(text: str, source: RecordId) -> None:
    """Refuse a tag before the end of another; without this, each of many would be searched to the end of its line."""
    opened = None
    for tag in _TAG_OR_LINE_END.finditer(text):
        if opened and tag["opened"]:
            kind = "image" if opened["opened"] == "img" else "video"
            raise RecordError(
                source,
                f"`{tag[0]}` stands inside the path of another {kind}: {describe(text[opened.start() : tag.end()])}",
            )
        opened = tag if tag["opened"] else None


def _image(tag: re.Match[str], source: RecordId, root: Path) -> Image:
    path = tag["path"]
    if path is None:
        path = tag["unclosed"]
        logger.warning("%s: `<img>%s` is not closed; the line's end is taken for `</img>`", source, path)
    _refuse_nested(tag, path, "image", source)
    return image_at(checked_text(path, "the path in `<img></img>`", source), root)


def _video(tag: re.Match[str], source: RecordId, root: Path) -> Video:
    name = "the path in `<video></video>`"
    path = checked_text(tag["video"], name, source)
    _refuse_nested(tag, path, "video", source)
    if not path.startswith("["):
        return Video(resolved(path, root))
    try:
        frames = orjson.loads(path)
    except orjson.JSONDecodeError as error:
        raise RecordError(source, f"{name} is {describe(path)}; expected a path or a JSON list of paths") from error
    return Video(tuple(resolved(checked_text(frame, f"a frame in {name}", source), root) for frame in frames))


def _refuse_nested(tag: re.Match[str], path: str, kind: str, source: RecordId) -> None:
    if nested := _MEDIA_TAG.search(path):
        raise RecordError(source, f"`{nested[0]}` stands inside the path of another {kind}: {describe(tag[0])}")


def _place_listed_images(turns: list[tuple[Role, list[Piece]]], value: object, source: RecordId, root: Path) -> None:
    """Put the images of the `image` key before the first user turn's text, unless the text shows them itself."""
    listed = _listed_images(value, source, root)
    inline = [piece for _, pieces in turns for piece in pieces if isinstance(piece, Image)]
    if listed and inline and listed != inline:
        raise RecordError(
            source,
            f"`image` is {describe(value)}, but the turns show other images: "
            f"{_shown(inline)}; expected the same ones, or only one of the two",
        )
    if listed and not inline:
        _refuse_placeholder(turns, source)
        first_user = next((pieces for role, pieces in turns if role == "user"), [])
        first_user[:0] = listed


def _shown(images: list[Image]) -> str:
    """Name the first of the paths; there may be thousands, or data: URLs of megabytes."""
    paths = [image.path[:_SHOWN_CHARACTERS] for image in images[:_SHOWN_IMAGES]]
    return ", ".join(paths) + (" ..." if len(images) > _SHOWN_IMAGES else "")


def _listed_images(value: object, source: RecordId, root: Path) -> list[Image]:
    paths = [] if value is None else value if isinstance(value, list) else [value]
    return [image_at(checked_text(path, "a path in `image`", source), root) for path in paths]


def _refuse_placeholder(turns: list[tuple[Role, list[Piece]]], source: RecordId) -> None:
    if any(_FOREIGN_PLACEHOLDER in piece for _, pieces in turns for piece in pieces if isinstance(piece, str)):
        raise RecordError(
            source, f"`{_FOREIGN_PLACEHOLDER}` is not read here; write `<img>path</img>` where the image stands"
        )
