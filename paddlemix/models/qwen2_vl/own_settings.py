"""What a record asks of one image or video, in place of its processor's settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from paddlemix.conversation import ImageSettings, VideoSettings
from paddlemix.media.images import size_problem

_SECONDS = ("start", "end")
_FRACTIONS = (*_SECONDS, "fps")
BOUNDS = (("min_frames", "max_frames"), ("min_pixels", "max_pixels"))


def given_values(settings: ImageSettings | VideoSettings) -> dict[str, Any]:
    """Check what is asked of one image or video.

    Args:
        settings: its own.

    Returns:
        What is set, by name.

    Raises:
        ValueError: a value makes no sense, alone or beside another.
    """
    given = {name: value for name, value in asdict(settings).items() if value is not None}
    for name, value in given.items():
        _check(name, value)
    start, end = given.get("start", 0), given.get("end", math.inf)
    if start >= end:
        raise ValueError(f"`start` is {start:g} s and `end` {end:g} s; expected `start` before `end`.")
    size = [given.get(name) for name in ("resized_width", "resized_height")]
    if None in size and size != [None, None]:
        raise ValueError(f"`resized_width` is {size[0]} and `resized_height` is {size[1]}; set both or none.")
    if None not in size and (problem := size_problem(*size)):
        raise ValueError(f"`resized_width` x `resized_height` {problem}")
    return given


def bounds_beside(given: Mapping[str, Any], own: object) -> dict[str, Any]:
    """Move bounds that cross a given one along with it.

    Args:
        given: what is asked for, by name.
        own: has the bounds that hold otherwise as attributes.

    Returns:
        Values of the bounds that are not given, where their counterpart is.
    """
    moved = {}
    for low, high in BOUNDS:
        if low in given and high not in given:
            moved[high] = max(getattr(own, high), given[low])
        elif high in given and low not in given:
            moved[low] = min(getattr(own, low), given[high])
    return moved


def _check(name: str, value: Any) -> None:
    kinds, expected = ((int, float), "a number") if name in _FRACTIONS else ((int,), "a whole number")
    least = "from 0 on" if name in _SECONDS else "above 0"
    is_number = isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or value < 0 or (value == 0 and name not in _SECONDS):
        raise ValueError(f"`{name}` is {value!r}; expected {expected} {least}.")
