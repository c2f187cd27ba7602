"""Bicubic resizing of video frames, bit-equal to what the published video preprocessor computes.

The preprocessor of pictures resizes with Pillow, that of videos with PyTorch. Both filter along rows first and columns
then, with the same cubic curve, and round to whole grey levels in between; but PyTorch's weights have 16
bits and Pillow's 32, which moves values by up to 2 levels on smooth pictures and by 13 on noise (measured).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.sparse import csr_matrix

_RADIUS = 2.0  # of the cubic curve, in pixels of whichever is coarser, source or result
_SHARPNESS = -0.5
_WEIGHT_BITS, _MOST_FRACTION_BITS = 15, 22


def resize_frame(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize a frame, with antialiasing where it shrinks.

    Args:
        frame: uint8[H, W, channels].
        width: pixels.
        height: pixels.

    Returns:
        uint8[height, width, channels].
    """
    if frame.shape[1] != width:
        frame = _filter_first_axis(frame.transpose(1, 0, 2), width).transpose(1, 0, 2)
    return frame if frame.shape[0] == height else _filter_first_axis(frame, height)


def _filter_first_axis(values: np.ndarray, length: int) -> np.ndarray:
    """uint8[old, ...] to uint8[length, ...]."""
    weights, fraction_bits = _weights(len(values), length)
    sums = weights @ values.reshape(len(values), -1).astype(np.int32)
    sums += 1 << (fraction_bits - 1)
    sums >>= fraction_bits
    return sums.clip(0, 255, out=sums).astype(np.uint8).reshape(length, *values.shape[1:])


@lru_cache(maxsize=64)  # The frames of a video, and often all videos of a set, have one size.
def _weights(old: int, new: int) -> tuple[csr_matrix, int]:
    """What each new place takes from each old one, int32[new, old], and how many bits of it are fraction."""
    exact = _exact_weights(old, new)
    fraction_bits = _fraction_bits(float(exact.max()))
    scaled = exact * (1 << fraction_bits)
    # Halves away from zero.
    return csr_matrix(np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int32)), fraction_bits


def _exact_weights(old: int, new: int) -> np.ndarray:
    """float64[new, old]; each row adds up to 1."""
    scale = old / new
    stretch = max(scale, 1.0)
    centres = scale * (np.arange(new) + 0.5)[:, None]
    places = np.arange(old)[None, :]
    first, last = (np.trunc(centres + side * _RADIUS * stretch + 0.5) for side in (-1, 1))
    curve = np.where((places >= first) & (places < last), _cubic((places - centres + 0.5) / stretch), 0.0)
    return curve / curve.sum(axis=1, keepdims=True)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution. Source: Keys, "Cubic convolution interpolation", 1981, equation 4."""
    x, a = np.abs(x), _SHARPNESS
    inner = ((a + 2) * x - (a + 3)) * x**2 + 1
    outer = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))


def _fraction_bits(largest: float) -> int:
    """The most bits behind the point with which the largest weight still fits a signed 16-bit integer."""
    bits = 0
    while bits < _MOST_FRACTION_BITS and int(largest * (1 << (bits + 1)) + 0.5) < 1 << _WEIGHT_BITS:
        bits += 1
    return bits
