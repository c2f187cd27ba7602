"""Images and videos as records name them: paths, addresses, bytes, frames, and what is asked of each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple, TypeVar

from paddlemix.conversation import Image, ImageSettings, Video, VideoSettings
from paddlemix.datasets.reading.context import Reading
from paddlemix.datasets.reading.fields import checked_text, resolved
from paddlemix.datasets.reading.keys import IMAGE_KEYS, VIDEO_KEYS, check_keys, is_given, keys, only_key
from paddlemix.datasets.records.json_files import describe
from paddlemix.media.data_url import data_url_of

SettingsT = TypeVar("SettingsT", ImageSettings, VideoSettings)
Named = dict[str, Image]
"""Images by the placeholders that show them, such as "<image_00>"."""

# The first that is given counts: `datasets` writes the name of a file beside its bytes, and no such file need exist.
_WHERE = ("bytes", "base64", "data", "path", "url", "file", "file_path")
_IMAGE_SETTINGS = tuple(field.name for field in fields(ImageSettings))
_VIDEO_SETTINGS = tuple(field.name for field in fields(VideoSettings))
# Other names of the same settings: qwen-vl-utils', and that of the rate of frames that were listed.
_SETTING_NAMES = {"video_start": "start", "video_end": "end", "sample_fps": "fps"}
_SECONDS = ("start", "end")
_NO_IMAGE_SETTINGS, _NO_VIDEO_SETTINGS = ImageSettings(), VideoSettings()
_ABOUT = ("detail", "format", "mime_type", "media_type")
_INDEX = re.compile(r"\[\d+\]")
IMAGE_SETTING_KEYS = _IMAGE_SETTINGS
VIDEO_SETTING_KEYS = (*_VIDEO_SETTINGS, *_SETTING_NAMES, "raw_fps")
_READ_OF_IMAGES = keys(*_WHERE, *_IMAGE_SETTINGS, *_ABOUT)
_READ_OF_VIDEOS = keys(*_WHERE, *VIDEO_SETTING_KEYS, *_ABOUT)


def images_of(holder: Mapping[str, Any], reading: Reading) -> list[Image] | Named:
    """Read the images that a record, or a turn, lists under whichever spelling of the key.

    Args:
        holder: the record or the turn.
        reading: the record's.

    Returns:
        The images in their order; or, where they are given by placeholders, by these.

    Raises:
        RecordError: two keys list different images, or a value is no image.
    """
    key = only_key(holder, IMAGE_KEYS, reading)
    if key is None:
        return []
    value = holder[key]
    if isinstance(value, dict) and value and all(name[:1] == "<" for name in value):
        return {name: image_from(path, f"`{key}.{name}`", reading) for name, path in value.items()}
    if not isinstance(value, list):
        return [image_from(value, f"`{key}`", reading)]
    return [image_from(one, f"`{key}[{number}]`", reading) for number, one in enumerate(value)]


def videos_of(holder: Mapping[str, Any], reading: Reading) -> list[Video]:
    """Read the videos that a record, or a turn, lists; one that is a list itself is given by its frames.

    Args:
        holder: the record or the turn.
        reading: the record's.

    Returns:
        The videos in their order.

    Raises:
        RecordError: two keys list different videos, or a value is no video.
    """
    key = only_key(holder, VIDEO_KEYS, reading)
    if key is None:
        return []
    if not isinstance(holder[key], list):
        return [video_from(holder[key], f"`{key}`", reading)]
    return [video_from(value, f"`{key}[{number}]`", reading) for number, value in enumerate(holder[key])]


def image_from(value: object, name: str, reading: Reading, settings: ImageSettings = _NO_IMAGE_SETTINGS) -> Image:
    """Read an image.

    Args:
        value: a path, an address, a data: URL, raw base64, or an object that holds one, such as {"path": ...},
            {"url": ...} or {"bytes": ...}, with `min_pixels` and the like beside it.
        name: what to call it in errors.
        reading: the record's.
        settings: that are given elsewhere.

    Returns:
        The image.

    Raises:
        RecordError: it is none of these.
    """
    if isinstance(value, dict):
        check_keys(value, _READ_OF_IMAGES, reading, _path(name))
        settings = _either(image_settings(value, name, reading), settings)
        _check_order(settings, name, reading)
    return Image(_place(value, name, reading), settings)


def video_from(value: object, name: str, reading: Reading, settings: VideoSettings = _NO_VIDEO_SETTINGS) -> Video:
    """Read a video.

    Args:
        value: as an image is written, or a list of its frames, each as an image is written.
        name: what to call it in errors.
        reading: the record's.
        settings: that are given elsewhere.

    Returns:
        The video.

    Raises:
        RecordError: it is none of these.
    """
    if isinstance(value, list):
        if not value:
            raise reading.error(f"{name} is an empty list; expected a path, or the paths of its frames")
        return Video(tuple(_place(frame, f"a frame of {name}", reading) for frame in value), settings)
    if isinstance(value, dict):
        check_keys(value, _READ_OF_VIDEOS, reading, _path(name))
        settings = _either(video_settings(value, name, reading), settings)
        _check_order(settings, name, reading)
    return Video(_place(value, name, reading), settings)


def image_settings(holder: Mapping[str, Any], name: str, reading: Reading) -> ImageSettings:
    """Read what is asked of one image.

    Args:
        holder: the object that has the keys of `ImageSettings`.
        name: what to call it in errors.
        reading: the record's.

    Returns:
        The settings; None where a key is not there.

    Raises:
        RecordError: a value is no whole number above 0, or larger than makes sense, or two of them cross.
    """
    given = {key: holder[key] for key in _IMAGE_SETTINGS if holder.get(key) is not None}
    for key, value in given.items():
        _check_number(value, key, name, reading, _bounds_of(key))
    settings = ImageSettings(**given)
    _check_order(settings, name, reading)
    return settings


def video_settings(holder: Mapping[str, Any], name: str, reading: Reading) -> VideoSettings:
    """Read what is asked of one video, under our names or those of qwen-vl-utils.

    Args:
        holder: the object that has the keys.
        name: what to call it in errors.
        reading: the record's.

    Returns:
        The settings; None where a key is not there.

    Raises:
        RecordError: a value is no number of its kind, or larger than makes sense, or two of them cross.
    """
    given: dict[str, Any] = {}
    for key in (*_SETTING_NAMES, *_VIDEO_SETTINGS):
        if holder.get(key) is not None:
            setting = _SETTING_NAMES.get(key, key)
            _check_number(holder[key], key, name, reading, _bounds_of(setting))
            given.setdefault(setting, holder[key])
    settings = VideoSettings(**given)
    _check_order(settings, name, reading)
    return settings


def _either(own: SettingsT, others: SettingsT) -> SettingsT:
    """Take the settings that stand in an object itself, and for those that do not, the ones beside it."""
    return replace(others, **{key: value for key, value in vars(own).items() if value is not None})


class _Bounds(NamedTuple):
    """What the number of a setting may be.

    Attributes:
        least: it or more.
        most: it or less.
        is_real: whether it need not be whole.
    """

    least: float
    most: float
    is_real: bool = False


def _bounds_of(setting: str) -> _Bounds:
    return _BOUNDS.get(setting, _Bounds(1, _MOST))


# Larger numbers are no wishes but mistakes, or the wish that memory runs out: what an image is enlarged to is 16384
# tokens at most, as many as published models make of the largest.
_MOST, _MOST_ENLARGED = 10**12, 16384 * 28 * 28
_BOUNDS = {
    "min_pixels": _Bounds(1, _MOST_ENLARGED),
    "resized_height": _Bounds(1, _MOST_ENLARGED),
    "resized_width": _Bounds(1, _MOST_ENLARGED),
    "fps": _Bounds(1e-4, 1e6, is_real=True),
    "start": _Bounds(0, 1e9, is_real=True),
    "end": _Bounds(0, 1e9, is_real=True),
}
_ORDERED = (("min_pixels", "max_pixels"), ("min_frames", "max_frames"), ("start", "end"))


def _check_number(value: object, key: str, name: str, reading: Reading, bounds: _Bounds) -> None:
    is_number = isinstance(value, (int, float) if bounds.is_real else int) and not isinstance(value, bool)
    if not is_number or not bounds.least <= value <= bounds.most:  # type: ignore[operator]
        words = "a number" if bounds.is_real else "a whole number"
        least = "above 0" if bounds.least else "of 0 or more"
        is_odd = is_number and value > 0  # type: ignore[operator]
        limits = f", from {bounds.least:g} to {bounds.most:,.0f}" if is_odd else ""
        raise reading.error(f"`{key}` of {name} is {describe(value)}; expected {words} {least}{limits}")


def _check_order(settings: ImageSettings | VideoSettings, name: str, reading: Reading) -> None:
    """Refuse bounds that cross."""
    for low, high in _ORDERED:
        least, most = getattr(settings, low, None), getattr(settings, high, None)
        if least is not None and most is not None and (least > most or (least == most and low in _SECONDS)):
            raise reading.error(
                f"`{low}` of {name} is {least:g} and `{high}` {most:g}; expected the first to be smaller"
            )


def _path(name: str) -> str:
    """Tell where errors about keys say that something is: "images[]" of "`images[3]`"."""
    return _INDEX.sub("[]", name.strip("`").split("`")[0])


def _place(value: object, name: str, reading: Reading) -> str:
    """Tell where an image or video is, as a path, an address or a data: URL."""
    if isinstance(value, dict):
        key = next((key for key in _WHERE if is_given(value.get(key))), None)
        if key is None:
            raise reading.error(f'{name} is {describe(value)}; expected a path, an address or {{"path": ...}}')
        value = value[key]
    if isinstance(value, (dict, list)):
        raise reading.error(f'{name} is {describe(value)}; expected a path, an address or {{"path": ...}}')
    if isinstance(value, bytes):
        url = data_url_of(value)
        if url is None:
            raise reading.error(f"{name} holds {len(value)} bytes that are no image or video of a known kind")
        return url
    text = checked_text(value, name, reading.source)
    return data_url_of(text) or resolved(text, reading.root)
