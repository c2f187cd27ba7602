"""What users may set about images and videos: as arguments, or as the environment variables they know from ms-swift.

An argument takes precedence over the environment, the environment over the checkpoint, and that over the defaults.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, TypedDict

from paddlemix.conversation import VideoSettings
from paddlemix.media.opening import ImageRange

logger = logging.getLogger(__name__)


class MediaSettings(TypedDict, total=False):
    """The arguments; None, or leaving one out, means that the environment or the checkpoint decides."""

    min_pixels: int | None
    max_pixels: int | None
    resized_height: int | None
    resized_width: int | None
    nframes: int | None
    fps: float | None
    min_frames: int | None
    max_frames: int | None
    video_min_pixels: int | None
    video_max_pixels: int | None
    video_total_pixels: int | None
    image_range: ImageRange | None
    image_pixel_limit: int | None


# Of sizes, and of choices of frames. Of several variables the first one that is set counts: releases of ms-swift differ
# in their names.
VARIABLES: dict[str, tuple[str, ...]] = {
    "min_pixels": ("MIN_PIXELS",),
    "max_pixels": ("MAX_PIXELS",),
    "resized_height": ("RESIZED_HEIGHT",),
    "resized_width": ("RESIZED_WIDTH",),
    "nframes": ("NFRAMES",),
    "fps": ("FPS",),
    "min_frames": ("FPS_MIN_FRAMES", "MIN_FRAMES"),
    "max_frames": ("FPS_MAX_FRAMES", "MAX_FRAMES"),
    "video_min_pixels": ("VIDEO_MIN_PIXELS",),
    "video_max_pixels": ("VIDEO_MAX_PIXELS",),
    "video_total_pixels": ("VIDEO_TOTAL_PIXELS", "TOTAL_PIXELS"),
}
# How images are opened; every family takes these.
OPENING_VARIABLES: dict[str, tuple[str]] = {
    "image_range": ("IMAGE_RANGE",),
    "image_pixel_limit": ("IMAGE_PIXEL_LIMIT",),
}
_IMAGES = ("min_pixels", "max_pixels", "resized_height", "resized_width")
_FRAME_CHOICE = ("nframes", "fps")


@dataclass(frozen=True)
class GivenSettings:
    """What a user has set.

    Attributes:
        images: fields of an image processor.
        video: the same for videos.
        sources: which variable of the environment each value was taken from; an argument has none.
    """

    images: dict[str, int]
    video: VideoSettings
    sources: dict[str, str]


def given_settings(
    arguments: MediaSettings, environment: Mapping[str, str] = os.environ, *, max_frame_pixels: int | None = None
) -> GivenSettings:
    """Read the settings that a user has made.

    Args:
        arguments: take precedence over the environment; none of `OPENING_VARIABLES`.
        environment: variables that are blank count as not set.
        max_frame_pixels: the largest area of a video's frame that the family's default allows; None where MAX_PIXELS
            says nothing about videos.

    Returns:
        The values.

    Raises:
        TypeError: an argument is none of the settings.
        ValueError: a value is no number of the expected kind, or both ways of choosing frames are set; the message
            names the variable or argument.
    """
    values: dict[str, Any] = _checked_arguments(arguments)
    _refuse_both_choices(values, {})
    found, sources = _from_environment(environment)
    _refuse_both_choices(found, sources)
    if "max_pixels" in found and max_frame_pixels is not None:
        # ms-swift's MAX_PIXELS lowers the bound of video frames too.
        found.setdefault("video_max_pixels", min(found["max_pixels"], max_frame_pixels))
        sources.setdefault("video_max_pixels", sources["max_pixels"])
    if any(name in values for name in _FRAME_CHOICE):
        found = {name: value for name, value in found.items() if name not in _FRAME_CHOICE}
    values = {**found, **values}
    video = {name.removeprefix("video_"): value for name, value in values.items() if name not in _IMAGES}
    return GivenSettings(
        images={name: values[name] for name in _IMAGES if name in values},
        video=VideoSettings(**video),
        sources={name: sources[name] for name in found if arguments.get(name) is None},
    )


@cache
def log_once(message: str) -> None:
    """Log a message the first time it is given."""
    logger.info(message)


@cache
def warn_once(message: str) -> None:
    """Log a warning the first time it is given."""
    logger.warning(message)


def _checked_arguments(arguments: MediaSettings) -> dict[str, Any]:
    for name in arguments:
        if name not in VARIABLES:
            known = [*VARIABLES, *OPENING_VARIABLES]
            close = get_close_matches(name, known, n=1)
            hint = f"Did you mean `{close[0]}`?" if close else f"Known: {', '.join(known)}."
            raise TypeError(f"`{name}` is nothing that can be set about images and videos. {hint}")
    given = {name: value for name, value in arguments.items() if value is not None}
    return {name: _checked(name, f"`{name}`", value) for name, value in given.items()}


def _from_environment(environment: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Read values, and which variable each was taken from."""
    values, sources = {}, {}
    for name, variables in VARIABLES.items():
        variable = next((one for one in variables if environment.get(one, "").strip()), None)
        if variable is not None:
            values[name] = _checked(name, variable, _number(environment[variable].strip()))
            sources[name] = variable
    if environment.get("SIZE_FACTOR", "").strip():
        logger.warning("SIZE_FACTOR is ignored: sides are always multiples of a token's (28 pixels).")
    return values, sources


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _checked(name: str, called: str, value: Any) -> int | float:
    """Return a value that is a number above 0, and whole but for `fps`; refuse any other."""
    kinds, expected = ((int, float), "a number") if name == "fps" else ((int,), "a whole number")
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < math.inf:
        raise ValueError(f"{called} is {value!r}; expected {expected} above 0.")
    return value


def _refuse_both_choices(values: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    if all(name in values for name in _FRAME_CHOICE):
        first, second = (sources.get(name, f"`{name}`") for name in _FRAME_CHOICE)
        raise ValueError(f"{first} and {second} are both set, but only one of them can choose frames; unset one.")
