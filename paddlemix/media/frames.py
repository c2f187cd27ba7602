"""Which frames of a video are shown, and how large they may be.

Source: the rule of the published Qwen2-VL video preprocessing, single-precision rounding included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from paddlemix.printable import in_one_line


class VideoError(ValueError):
    """A video that cannot be used; the message names it and says what was expected."""

    def __init__(self, message: str) -> None:
        super().__init__(in_one_line(message))


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before its frames are decoded.

    Attributes:
        frames: how many it has.
        rate: frames a second; None where it tells none.
        width: pixels of an upright frame.
        height: pixels of an upright frame.
        is_sampled: whether its frames were chosen already, so that all are shown.
        other_sizes: the width and height of frames that differ from the first, with the name of the first such frame.
    """

    frames: int
    rate: float | None
    width: int
    height: int
    is_sampled: bool = False
    other_sizes: Mapping[tuple[int, int], str] = field(default_factory=dict)


def frame_range(total: int, rate: float | None, *, start: float | None, end: float | None) -> range:
    """Tell which frames lie in a stretch of a video.

    Args:
        total: frames of the video, at least 1.
        rate: frames a second of the video; None or 0 where it tells none.
        start: seconds at which the stretch begins; None means with the video.
        end: seconds at which it ends; None, or one behind the video's end, means with the video.

    Returns:
        Their places; all of the video's where neither is given.

    Raises:
        VideoError: the stretch has fewer than two frames, or the video tells no rate; the message goes on from the
            video's name.
    """
    if start is None and end is None:
        return range(total)
    if not rate:
        raise VideoError("tells no frame rate, so that `start` and `end` name none of its frames; leave them out.")
    seconds = total / rate
    first = 0 if start is None else math.ceil(min(start, seconds) * rate)
    last = total - 1 if end is None else min(math.floor(min(end, seconds) * rate), total - 1)
    if first >= last:
        asked = " and ".join(f"`{name}` {at:g} s" for name, at in (("start", start), ("end", end)) if at is not None)
        raise VideoError(
            f"lasts {seconds:.2f} s ({total} frames, {rate:g} a second), and {asked} leave fewer than two frames of "
            "it. Change them."
        )
    return range(first, last + 1)


def frame_count(
    total: int, rate: float | None, *, nframes: int | None, fps: float, min_frames: int, max_frames: int, multiple: int
) -> int:
    """Decide how many frames to take.

    Args:
        total: frames of the video, at least 1.
        rate: frames a second of the video; None or 0 where it tells none.
        nframes: frames asked for, all where the video has fewer; None lets `fps` decide.
        fps: frames a second asked for.
        min_frames: at least so many, where `fps` decides and the video has them.
        max_frames: at most so many, where `fps` decides.
        multiple: the result is one of this, the frames that a patch spans.

    Returns:
        A multiple of `multiple` that is not above `total`, however many were asked for; or `total` where that is below
        `multiple`.

    Raises:
        VideoError: `nframes` or `max_frames` is too small, or the video tells no rate; the message goes on from the
            video's name.
    """
    most = math.floor(total / multiple) * multiple or total
    if nframes is not None:
        return min(_given_count(nframes, multiple), most)
    if total < multiple:
        return total
    if not rate:
        raise VideoError("tells no frame rate; set `nframes` (NFRAMES).")
    if max_frames < multiple:
        raise VideoError(
            f"cannot be shown as {max_frames} frames at most, as `max_frames` says: they are taken in steps of "
            f"{multiple}; expected {multiple} or more."
        )
    least = math.ceil(min_frames / multiple) * multiple
    most = min(math.floor(max_frames / multiple) * multiple, most)
    return math.floor(min(max(total / rate * fps, least), most) / multiple) * multiple


def _given_count(nframes: int, multiple: int) -> int:
    count = round(nframes / multiple) * multiple
    if count < multiple:
        raise VideoError(
            f"cannot be shown as {nframes} frames, as `nframes` (NFRAMES) says: they are taken in steps of {multiple}; "
            f"expected {multiple} or more."
        )
    return count


def frame_indices(total: int, count: int, first: int = 0) -> np.ndarray:
    """Spread the places of `count` frames evenly from the first to the last.

    The places are laid out in single precision, from both ends to the middle and with fused multiply-add, as PyTorch
    does on today's processors: otherwise some halves would round to the other neighbour.

    Args:
        total: frames of the video, or of a stretch of it.
        count: at least 1, at most `total`.
        first: the place at which the stretch begins.

    Returns:
        int64[count], ascending.
    """
    if count == 1:
        return np.full(1, first, dtype=np.int64)
    last = np.float32(first + total - 1)
    step = np.float64((last - np.float32(first)) / np.float32(count - 1))
    steps = np.arange(count)
    # float64 holds these sums and products exactly, so that each place is rounded once.
    places = np.where(steps < count // 2, first + step * steps, last - step * steps[::-1])
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
