"""Texts whose placeholders, such as `<image>`, stand for what lists of the record hold, in the same order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from paddlemix.conversation import Conversation, Part, RecordError, RecordId, Role, Video
from paddlemix.datasets.formats.format import build_conversation, checked_text, image_at, resolved
from paddlemix.datasets.formats.pieces import Piece, split_turns
from paddlemix.datasets.formats.turns import Said
from paddlemix.datasets.records.json_files import Record, describe


@dataclass(frozen=True)
class Listed:
    """What the occurrences of one placeholder stand for.

    Attributes:
        tag: the placeholder, such as "<image>".
        key: where the record lists it.
        parts: what each occurrence becomes, in order.
    """

    tag: str
    key: str
    parts: Sequence[Sequence[Part]]


def listed_media(record: Record, images: str, videos: str, source: RecordId, root: Path) -> tuple[Listed, Listed]:
    """Read a record's list of images and its list of videos; a video that is a list itself is given by its frames.

    Args:
        record: the record.
        images: the key of the list of images; one path, null, or nothing at all will do too.
        videos: the key of the list of videos; likewise.
        source: the record to name in errors.
        root: the folder of relative paths.

    Returns:
        What `<image>` and what `<video>` stand for.

    Raises:
        RecordError: a path is no text.
    """
    shown = [[image_at(path, root)] for path in _paths(record, images, source)]
    played = [[_video(value, videos, source, root)] for value in _values(record, videos)]
    return Listed("<image>", images, shown), Listed("<video>", videos, played)


def converse(turns: Said, media: Sequence[Listed], source: RecordId, others: Sequence[Listed] = ()) -> Conversation:
    """Put everything listed where its placeholders stand, and read the tags of the text between.

    Args:
        turns: role and text of each.
        media: images and videos; where no placeholder of a kind stands anywhere, all of it comes before the first
            question.
        source: the record to name in errors.
        others: what else has placeholders.

    Returns:
        The conversation.

    Raises:
        RecordError: there are more placeholders than things listed or fewer, or the turns make no conversation.
    """
    turns = _with_missing_tags(turns, media)
    listed = {each.tag: each for each in (*media, *others)}
    tag = re.compile("(" + "|".join(map(re.escape, listed)) + ")")
    cut = [(role, tag.split(text)) for role, text in turns]
    found = [stretch for _, stretches in cut for stretch in stretches[1::2]]
    for each in listed.values():
        _check_count(each, found.count(each.tag), source)
    remaining = {each.tag: iter(each.parts) for each in listed.values()}
    filled: list[tuple[Role, list[Piece]]] = []
    for role, stretches in cut:
        pieces: list[Piece] = []
        for place, text in enumerate(stretches):  # re.split alternates text and placeholder
            pieces += next(remaining[text]) if place % 2 else [text]
        filled.append((role, pieces))
    return build_conversation(split_turns(filled, source), source)


def _with_missing_tags(turns: Said, media: Iterable[Listed]) -> Said:
    missing = "".join(each.tag * len(each.parts) for each in media if not any(each.tag in text for _, text in turns))
    first_user = next((number for number, (role, _) in enumerate(turns) if role == "user"), None)
    return [(role, missing + text if number == first_user else text) for number, (role, text) in enumerate(turns)]


def _check_count(listed: Listed, found: int, source: RecordId) -> None:
    if found != len(listed.parts):
        raise RecordError(
            source,
            f"the turns have {found} `{listed.tag}`, but `{listed.key}` lists {len(listed.parts)}; expected one each",
        )


def _values(record: Record, key: str) -> list[object]:
    value = record.get(key)
    return [] if value is None or value == "" else value if isinstance(value, list) else [value]


def _paths(record: Record, key: str, source: RecordId) -> list[str]:
    return [_path(value, f"`{key}[{number}]`", source) for number, value in enumerate(_values(record, key))]


def _path(value: object, name: str, source: RecordId) -> str:
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        value = value["path"]
    if isinstance(value, (dict, list)):
        raise RecordError(source, f'{name} is {describe(value)}; expected a path, an address or {{"path": ...}}')
    return checked_text(value, name, source)


def _video(value: object, key: str, source: RecordId, root: Path) -> Video:
    if not isinstance(value, list):
        return Video(resolved(_path(value, f"a video in `{key}`", source), root))
    if not value:
        raise RecordError(source, f"a video in `{key}` is an empty list; expected a path, or the paths of its frames")
    return Video(tuple(resolved(_path(frame, f"a frame in `{key}`", source), root) for frame in value))
