"""Messages as OpenAI's interface takes them, and as Qwen2-VL's own examples write them.

{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}},
                                           {"type": "text", "text": "What is this?"}]},
              {"role": "assistant", "content": "A bus."}]}
{"messages": [{"role": "user", "content": [{"type": "video", "video": "a.mp4", "fps": 1}, ...]}, ...]}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paddlemix.conversation import Conversation, Part, RecordError, RecordId, Role, Video, VideoSettings
from paddlemix.datasets.formats.format import (
    Format,
    build_conversation,
    checked_text,
    image_at,
    refuse_unread,
    require,
    resolved,
)
from paddlemix.datasets.formats.pieces import Piece, split_turns
from paddlemix.datasets.formats.turns import role_at
from paddlemix.datasets.records.json_files import Record, describe

# The key that holds the value of a part of each type, and those that may stand beside it.
_TYPES: dict[str, tuple[str, ...]] = {
    "text": (),
    "image_url": (),
    "video_url": (),
    "image": (),
    "video": ("fps", "nframes", "min_frames", "max_frames", "min_pixels", "max_pixels", "total_pixels"),
}


def parse(record: Record, source: RecordId, root: Path) -> Conversation:
    """Make a conversation of one record.

    Args:
        record: the record.
        source: where it comes from.
        root: the folder of relative image paths.

    Returns:
        The messages.

    Raises:
        RecordError: the record has another shape.
    """
    refuse_unread(record, ("messages",), source)
    messages = require(record, "messages", list, "a list of messages", source)
    turns = [_turn(message, f"`messages[{number}]`", source, root) for number, message in enumerate(messages)]
    return build_conversation(split_turns(turns, source), source)


FORMAT = Format(parse)


def _turn(message: Any, name: str, source: RecordId, root: Path) -> tuple[Role, list[Piece]]:
    if not isinstance(message, dict):
        raise RecordError(source, f'{name} is {describe(message)}; expected {{"role": ..., "content": ...}}')
    role = role_at(message, "role", name, source)
    content = message.get("content")
    if isinstance(content, str):
        return role, [content]
    if not isinstance(content, list):
        raise RecordError(source, f"`content` of {name} is {describe(content)}; expected a text or a list of parts")
    return role, [_piece(part, f"`content[{number}]` of {name}", source, root) for number, part in enumerate(content)]


def _piece(part: Any, name: str, source: RecordId, root: Path) -> Piece:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind not in _TYPES:
        raise RecordError(source, f'{name} is {describe(part)}; expected {{"type": one of {", ".join(_TYPES)}, ...}}')
    if unread := [f"`{key}`" for key in part if key not in ("type", kind, *_TYPES[kind])]:
        raise RecordError(source, f"{', '.join(unread)} of {name} would be ignored; take it out")
    if kind == "text":
        return require(part, "text", str, "a text", source, within=name)
    return _medium(part, kind, name, source, root)


def _medium(part: Record, kind: str, name: str, source: RecordId, root: Path) -> Part:
    value = part.get(kind)
    if isinstance(value, dict) and kind.endswith("_url"):
        value = require(value, "url", str, "an address", source, within=f"`{kind}` of {name}")
    if kind.startswith("image"):
        return image_at(checked_text(value, f"`{kind}` of {name}", source), root)
    settings = _settings(part, kind, name, source)
    if isinstance(value, list) and value:
        frames = (checked_text(frame, f"a frame of {name}", source) for frame in value)
        return Video(tuple(resolved(frame, root) for frame in frames), settings)
    return Video(resolved(checked_text(value, f"`{kind}` of {name}", source), root), settings)


def _settings(part: Record, kind: str, name: str, source: RecordId) -> VideoSettings:
    given = {key: part[key] for key in _TYPES[kind] if part.get(key) is not None}
    for key, value in given.items():
        kinds, words = ((int, float), "a number") if key == "fps" else (int, "a whole number")
        if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < 1e12:
            raise RecordError(source, f"`{key}` of {name} is {describe(value)}; expected {words} above 0")
    return VideoSettings(**given)
