"""Contents that are lists of parts: texts, images and videos, as OpenAI, Anthropic, Hugging Face and TRL write them."""

from __future__ import annotations

from typing import Any

from paddlemix.conversation import Image, Video
from paddlemix.datasets.reading.context import Reading
from paddlemix.datasets.reading.keys import check_keys
from paddlemix.datasets.reading.media import (
    IMAGE_SETTING_KEYS,
    VIDEO_SETTING_KEYS,
    image_from,
    image_settings,
    video_from,
    video_settings,
)
from paddlemix.datasets.reading.slots.placeholders import IMAGE, VIDEO, Piece, Slot
from paddlemix.datasets.records.json_files import describe

_TEXT_TYPES = ("text", "input_text", "output_text")
_IMAGE_TYPES = ("image", "image_url", "input_image")
_VIDEO_TYPES = ("video", "video_url", "input_video")
_TYPES = (*_TEXT_TYPES, *_IMAGE_TYPES, *_VIDEO_TYPES)
_TEXT_KEYS = ("text", "value", "content")
_PLACE_KEYS = ("path", "url", "base64", "bytes", "source", "value", "data", "file")
_ABOUT = ("type", "index", "cache_control", "detail")


def pieces_of(content: list[Any], name: str, reading: Reading) -> list[Piece]:
    """Read a content that is a list of parts.

    Args:
        content: of a turn.
        name: what to call it in errors.
        reading: the record's.

    Returns:
        Texts that are not read yet, images, videos, and slots where a part only says that one is shown.

    Raises:
        RecordError: a part is of no known type, or says more than is read.
    """
    return [_piece(part, f"`content[{number}]` of {name}", reading) for number, part in enumerate(content)]


def _piece(part: Any, name: str, reading: Reading) -> Piece:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise reading.error(f'{name} is {describe(part)}; expected {{"type": one of {", ".join(_TYPES)}, ...}}')
    given = {key: value for key, value in part.items() if value is not None}
    kind = given.get("type") or next((key for key in _TYPES if key in given), None)
    if kind in _TEXT_TYPES:
        check_keys(given, (*_ABOUT, *_TEXT_KEYS), reading, "content[]")
        return _text(given, name, reading)
    if kind in _IMAGE_TYPES:
        return _image(given, name, reading)
    if kind in _VIDEO_TYPES:
        return _video(given, name, reading)
    raise reading.error(f'{name} is {describe(part)}; expected {{"type": one of {", ".join(_TYPES)}, ...}}')


def _text(part: dict[str, Any], name: str, reading: Reading) -> str:
    value = next((part[key] for key in _TEXT_KEYS if key in part), None)
    if not isinstance(value, str):
        raise reading.error(f"`text` of {name} is {describe(value)}; expected a text")
    return value


def _image(part: dict[str, Any], name: str, reading: Reading) -> Image | Slot:
    check_keys(part, (*_ABOUT, *_IMAGE_TYPES, *_PLACE_KEYS, *IMAGE_SETTING_KEYS), reading, "content[]")
    value = _value(part, _IMAGE_TYPES)
    settings = image_settings(part, name, reading)
    return Slot(IMAGE) if value is None else image_from(value, f"`image` of {name}", reading, settings)


def _video(part: dict[str, Any], name: str, reading: Reading) -> Video | Slot:
    check_keys(part, (*_ABOUT, *_VIDEO_TYPES, *_PLACE_KEYS, *VIDEO_SETTING_KEYS), reading, "content[]")
    value = _value(part, _VIDEO_TYPES)
    settings = video_settings(part, name, reading)
    return Slot(VIDEO) if value is None else video_from(value, f"`video` of {name}", reading, settings)


def _value(part: dict[str, Any], types: tuple[str, ...]) -> Any:
    """Find what a part shows; None where it only says that something is shown."""
    return next((part[key] for key in (*types, *_PLACE_KEYS) if key in part), None)
