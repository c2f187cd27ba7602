"""Which frames of a video are shown, and how large they may be.

Source: the rule of the published Qwen2-VL video preprocessing, single-precision rounding included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


class VideoError(ValueError):
    """A video that cannot be used; the message names it and says what was expected."""


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before its frames are decoded.

    Attributes:
        frames: how many it has.
        rate: frames a second; None where it tells none.
        width: pixels of an upright frame.
        height: pixels of an upright frame.
        is_sampled: whether its frames were chosen already, so that all are shown.
    """

    frames: int
    rate: float | None
    width: int
    height: int
    is_sampled: bool = False


def frame_count(
    total: int, rate: float | None, *, nframes: int | None, fps: float, min_frames: int, max_frames: int, multiple: int
) -> int:
    """Decide how many frames to take.

    Args:
        total: frames of the video, at least 1.
        rate: frames a second of the video; None or 0 where it tells none.
        nframes: frames asked for; None lets `fps` decide.
        fps: frames a second asked for.
        min_frames: at least so many, where `fps` decides and the video has them.
        max_frames: at most so many, where `fps` decides.
        multiple: the result is one of this, the frames that a patch spans.

    Returns:
        A multiple of `multiple` that is not above `total`; or `total` where that is below `multiple`.

    Raises:
        VideoError: the video does not have `nframes`, or tells no rate; the message goes on from the video's name.
    """
    if nframes is not None:
        return _given_count(nframes, total, multiple)
    if total < multiple:
        return total
    if not rate:
        raise VideoError("tells no frame rate; set `nframes` (NFRAMES).")
    least = math.ceil(min_frames / multiple) * multiple
    most = math.floor(min(max_frames, total) / multiple) * multiple
    return math.floor(min(max(total / rate * fps, least), most) / multiple) * multiple


def _given_count(nframes: int, total: int, multiple: int) -> int:
    count = round(nframes / multiple) * multiple
    if not multiple <= count <= total:
        raise VideoError(
            f"has {total} frames, but `nframes` (NFRAMES) is {nframes}, which makes {count} in steps of {multiple}; "
            f"expected {multiple} to {total}. Change it, or set `fps` (FPS) in its place."
        )
    return count


def frame_indices(total: int, count: int) -> np.ndarray:
    """Spread the places of `count` frames evenly from the first to the last.

    The places are laid out in single precision, from both ends to the middle and with fused multiply-add, as PyTorch
    does on today's processors: otherwise some halves would round to the other neighbour.

    Args:
        total: frames of the video.
        count: at least 1, at most `total`.

    Returns:
        int64[count], ascending.
    """
    if count == 1:
        return np.zeros(1, dtype=np.int64)
    last = np.float32(total - 1)
    step = np.float64(last / np.float32(count - 1))
    steps = np.arange(count)
    # float64 holds these products exactly, so that each place is rounded once.
    places = np.where(steps < count // 2, step * steps, last - step * steps[::-1])
    return np.rint(places.astype(np.float32)).astype(np.int64)


def frame_bounds(
    count: int, *, min_pixels: int, max_pixels: int, total_pixels: int, multiple: int
) -> tuple[int, float]:
    """Decide the smallest and largest area of a frame.

    Args:
        count: frames shown, those that fill up the last patch included.
        min_pixels: smallest area.
        max_pixels: largest area, not below `min_pixels`.
        total_pixels: largest area of all frames together, `multiple` frames counting as one.
        multiple: frames that a patch spans.

    Returns:
        Both in pixels.
    """
    # A little above the smallest area there is always room to keep the aspect ratio.
    share = max(total_pixels / count * multiple, int(min_pixels * 1.05))
    return min_pixels, min(max_pixels, share)
