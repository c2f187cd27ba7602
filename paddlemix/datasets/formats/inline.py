"""Images and videos inside a text, as Qwen-VL writes them: `<img>path</img>`, `<video>path</video>`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import orjson

from paddlemix.conversation import Conversation, Image, Video
from paddlemix.datasets.formats.messages import converse_beside
from paddlemix.datasets.reading.context import Reading
from paddlemix.datasets.reading.converse import converse
from paddlemix.datasets.reading.fields import checked_text
from paddlemix.datasets.reading.media import image_from, images_of, video_from, videos_of
from paddlemix.datasets.reading.places.objects import Counts, objects_of
from paddlemix.datasets.reading.slots.placeholders import Piece
from paddlemix.datasets.reading.tools import tools_of
from paddlemix.datasets.reading.turns import Said, has_tags, with_system
from paddlemix.datasets.records.json_files import Record, describe

_SHOWN_IMAGES, _SHOWN_CHARACTERS = 3, 200
# Where an image's end tag is forgotten, the line's end is taken for it. One behind a backslash is text.
_MEDIA = re.compile(
    r"(?<!\\)(?:<img>(?P<path>[^\n]*?)</img>|<img>(?P<unclosed>[^\r\n]*)(?=\r?\n)|<video>(?P<video>[^\n<]*)</video>)"
)
_MEDIA_TAG = re.compile(r"(?<!\\)(?:</?img>|</video>)")
_ESCAPED = re.compile(r"\\(</?img>|</video>)")
_TAG_OR_LINE_END = re.compile(r"(?<!\\)(?:<(?P<opened>img|video)>|</(?:img|video)>)|\n")


def with_inline_media(record: Record, turns: Sequence[Said], reading: Reading) -> Conversation:
    """Make a conversation of turns whose texts hold images and videos; what the record lists it shows too.

    Args:
        record: may list images and videos, and say other things beside its turns.
        turns: of it.
        reading: of it.

    Returns:
        The conversation; images of the record come before the first question, unless the texts show the same.

    Raises:
        RecordError: a tag has no partner, the texts and the record show different images, or the turns make no
            conversation.
    """
    cut = [said._replace(pieces=_cut(said, reading)) if has_tags(said) else said for said in turns]
    inline = [piece for said in cut for piece in said.pieces if isinstance(piece, Image)]
    if not inline:
        return converse_beside(record, cut, reading, markup=True)
    listed = images_of(record, reading)
    if listed and listed != inline:
        raise reading.error(
            f"the record lists {_shown(listed)}, but its turns show other images: {_shown(inline)}; expected the same "
            "ones, or only one of the two"
        )
    return converse(
        with_system(record, cut, reading),
        reading,
        videos=videos_of(record, reading),
        others=objects_of(record, cut, Counts(len(inline)), reading),
        markup=True,
        tools=tools_of(record, reading),
    )


def _cut(said: Said, reading: Reading) -> list[Piece]:
    return [
        part
        for piece in said.pieces
        for part in (_cut_text(piece, reading) if isinstance(piece, str) and "<" in piece else [piece])
    ]


def _cut_text(text: str, reading: Reading) -> list[Piece]:
    _refuse_opened_twice(text, reading)
    pieces: list[Piece] = []
    position = 0
    for tag in _MEDIA.finditer(text):
        pieces += [
            text[position : tag.start()],
            _video(tag, reading) if tag["video"] is not None else _image(tag, reading),
        ]
        position = tag.end()
    pieces.append(text[position:])
    return [_text(piece, text, reading) if isinstance(piece, str) else piece for piece in pieces]


def _text(piece: str, text: str, reading: Reading) -> str:
    """Refuse a tag that was left over, and take the backslashes away."""
    if stray := _MEDIA_TAG.search(piece):
        name = stray[0].strip("</>")
        raise reading.error(
            f"tag `{stray[0]}` has no partner in {describe(text)}; expected `<{name}>path</{name}>`, or a backslash "
            "before it where it is text"
        )
    return _ESCAPED.sub(r"\1", piece)


def _refuse_opened_twice(text: str, reading: Reading) -> None:
    """Refuse a tag before the end of another; without this, each of many would be searched to the end of its line."""
    opened = None
    for tag in _TAG_OR_LINE_END.finditer(text):
        if opened and opened["opened"] == "img" and tag["opened"]:
            raise reading.error(
                f"`{tag[0]}` stands inside the path of another image: {describe(text[opened.start() : tag.end()])}"
            )
        opened = tag if tag["opened"] else None


def _image(tag: re.Match[str], reading: Reading) -> Image:
    path = tag["path"]
    if path is None:
        path = tag["unclosed"]
        reading.note("an `<img>` is not closed; the line's end is taken for `</img>`")
    if nested := _MEDIA_TAG.search(path):
        raise reading.error(f"`{nested[0]}` stands inside the path of another image: {describe(tag[0])}")
    return image_from(
        checked_text(path, "the path in `<img></img>`", reading.source), "the path in `<img></img>`", reading
    )


def _video(tag: re.Match[str], reading: Reading) -> Video:
    name = "the path in `<video></video>`"
    path = checked_text(tag["video"], name, reading.source)
    if not path.startswith("["):
        return video_from(path, name, reading)
    try:
        frames = orjson.loads(path)
    except orjson.JSONDecodeError as error:
        raise reading.error(f"{name} is {describe(path)}; expected a path or a JSON list of paths") from error
    return video_from(frames, name, reading)


def _shown(images: object) -> str:
    """Name the first of the paths; there may be thousands, or data: URLs of megabytes."""
    listed = list(images.values() if isinstance(images, dict) else images)  # type: ignore[call-overload]
    paths = [image.path[:_SHOWN_CHARACTERS] for image in listed[:_SHOWN_IMAGES]]
    return ", ".join(paths) + (" ..." if len(listed) > _SHOWN_IMAGES else "")
