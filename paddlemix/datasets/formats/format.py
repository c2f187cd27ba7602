"""What a record format is, and the checks that all formats share."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from paddlemix.conversation import (
    Box,
    Conversation,
    Image,
    Part,
    Point,
    RecordError,
    RecordId,
    Reference,
    Task,
    Text,
    Turn,
    Video,
)
from paddlemix.datasets.records.json_files import Located, Record, describe

_TEXT = "a text that is not blank"
# Keys that mean something in one format or another. Ignoring one would silently train on a part of the record.
_MEANINGFUL_KEYS = (
    "image", "images", "video", "videos", "audio", "audios", "objects", "history", "system", "tools", "messages",
    "conversations", "query", "response", "rejected_response", "chosen", "rejected",
)  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True)
class Format:
    """One way of writing records.

    Attributes:
        parse: `parse(record, source, root)` makes the conversation; `root` is the folder of relative image paths.
            Raises `RecordError`.
        expand: `expand(documents)` turns files that are one object each, by their names, into records; None where the
            format has no such files. Raises `ValueError` naming a file.
        takes_prompt: whether `parse` has a `prompt` keyword, the `prompt` of the data set's entry.
        prompt_holds: what such a prompt must hold, such as "{phrase}".
        task: of all conversations that `parse` makes.
    """

    parse: Callable[..., Conversation]
    expand: Callable[[Mapping[str, Record]], Iterable[Located]] | None = None
    takes_prompt: bool = False
    prompt_holds: str = ""
    task: Task = "chat"


def refuse_unread(record: Record, read: Collection[str], source: RecordId) -> None:
    """Refuse a record that says more than its format reads.

    Args:
        record: the record.
        read: the keys that its format reads.
        source: the record to name in errors.

    Raises:
        RecordError: a key that means something in another format is given.
    """
    found = [f"`{key}`" for key in _MEANINGFUL_KEYS if key not in read and record.get(key)]
    if found:
        raise RecordError(
            source,
            f"{', '.join(found)} would be ignored; this format reads {', '.join(f'`{key}`' for key in read)}. "
            "Take the key out, or choose the format that reads it",
        )


def require(record: Record, key: str, kind: type[T], expected: str, source: RecordId, within: str = "the record") -> T:
    """Read a key that a record must have.

    Args:
        record: where to look.
        key: what to look for.
        kind: the Python type of the value.
        expected: the value in words, for the error.
        source: the record to name in errors.
        within: what `record` is called, for the error.

    Returns:
        The value.

    Raises:
        RecordError: the key is missing or its value of another kind.
    """
    if key not in record:
        found = ", ".join(f"`{name}`" for name in record) or "no key at all"
        raise RecordError(source, f"key `{key}` is missing in {within}, which has {found}; expected {expected}")
    value = record[key]
    if not isinstance(value, kind):
        raise RecordError(source, f"`{key}` of {within} is {describe(value)}; expected {expected}")
    return value


def text_at(record: Record, key: str, source: RecordId) -> str:
    """Read a text that a record must have.

    Args:
        record: where to look.
        key: what to look for.
        source: the record to name in errors.

    Returns:
        The text, not blank.

    Raises:
        RecordError: the key is missing, or its value is not a text, or blank.
    """
    return checked_text(require(record, key, str, _TEXT, source), f"`{key}` of the record", source)


def checked_text(value: object, name: str, source: RecordId) -> str:
    """Make sure that a value is a text that is not blank.

    Args:
        value: the value to check.
        name: what to call it in the error.
        source: the record to name in errors.

    Returns:
        The value itself.

    Raises:
        RecordError: it is something else.
    """
    if not isinstance(value, str) or not value.strip():
        raise RecordError(source, f"{name} is {describe(value)}; expected {_TEXT}")
    return value


def image_at(path: str, root: Path) -> Image:
    """Say where an image is.

    Args:
        path: as the record has it, not blank.
        root: the folder of relative paths.

    Returns:
        The image; http(s) addresses, data: URLs and absolute paths stay as they are, others start at `root`.
    """
    return Image(resolved(path, root))


def resolved(path: str, root: Path) -> str:
    """Tell where a record's image or video is.

    Args:
        path: as the record has it, not blank. It may be a `file://` URL, begin with `~/`, or be written with the
            backslashes of Windows.
        root: the folder of relative paths.

    Returns:
        http(s) addresses, data: URLs and absolute paths as they are, others from `root` on.
    """
    if path.lstrip()[:8].lower().startswith(("http://", "https://", "data:")):
        return path.strip()
    given = path.removeprefix("file://")
    if given != path:
        plain = unquote(given.removeprefix("localhost"))
    else:
        plain = os.path.expanduser("~") + given[1:] if given.startswith(("~/", "~\\")) else given
    # On most systems a name may hold these characters: what is there as it stands is meant as it stands.
    *others, likeliest = dict.fromkeys((given, plain, plain.replace("\\", "/")))
    return next((found for one in others if os.path.exists(found := str(root / one))), str(root / likeliest))


def plain_text(parts: Sequence[Part]) -> str:
    """Leave out tags, boxes, points and images.

    Args:
        parts: the parts of a turn.

    Returns:
        What the parts say, in the form in which answers are scored.
    """
    return "".join(part.text for part in parts if isinstance(part, (Text, Reference)))


def build_conversation(
    turns: Sequence[Turn], source: RecordId, *, answers: tuple[str, ...] = (), task: Task = "chat"
) -> Conversation:
    """Put turns together and check what every conversation has to hold.

    Args:
        turns: the turns in their order.
        source: the record to name in errors.
        answers: the texts to score an answer against.
        task: which metric fits.

    Returns:
        The conversation.

    Raises:
        RecordError: the roles do not alternate from user to assistant, an assistant turn is blank, an image or video
            stands outside the user turns, or a box or a point has no image.
    """
    _check_order(turns, source)
    for number, turn in enumerate(turns):
        _check_turn(turn, number, source)
    conversation = Conversation(tuple(turns), source, answers=answers, task=task)
    if not conversation.images and any(isinstance(part, (Box, Point)) for part in conversation.parts):
        raise RecordError(source, "the record has boxes but no image that they could lie on")
    return conversation


def _check_order(turns: Sequence[Turn], source: RecordId) -> None:
    roles = [turn.role for turn in turns]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    if not spoken or spoken != ["user", "assistant"] * (len(spoken) // 2):
        raise RecordError(
            source,
            f"the turns are {', '.join(roles) or 'none'}; expected user, assistant, user, assistant and so on, "
            "ending with assistant, after at most one system turn",
        )


def _check_turn(turn: Turn, number: int, source: RecordId) -> None:
    for kind, name in ((Image, "an image"), (Video, "a video")):
        if turn.role != "user" and any(isinstance(part, kind) for part in turn.parts):
            raise RecordError(source, f"turn {number} ({turn.role}) shows {name}; only user turns may")
    says_something = plain_text(turn.parts).strip() or any(isinstance(part, (Box, Point)) for part in turn.parts)
    if turn.role == "assistant" and not says_something:
        raise RecordError(source, f"turn {number} (assistant) is blank; expected the answer to learn")
