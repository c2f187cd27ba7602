"""What a resized axis takes from the old one: bicubic weights in whole numbers.

Source: Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981; the curve is stretched where the
axis shrinks, so that every old place counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

Precision = Literal["pillow", "torch"]
PRECISIONS = get_args(Precision)

_RADIUS = 2.0  # of the cubic curve, in pixels of whichever is coarser, old or new
_SHARPNESS = -0.5
# Sums of bytes times weights of so many bits after the point fit 32 bits.
_MOST_FRACTION_BITS = 22
_TORCH_WEIGHT_BITS = 15


@dataclass(frozen=True, eq=False)
class AxisWeights:
    """New place i is the sum of `count[i]` old places from `first[i]` on, each times its weight.

    Attributes:
        first: int32[new].
        count: int32[new], at least 1.
        weights: int32[new, taps], 0 after a place's count; those of a place add up to about 1.
        fraction_bits: how many bits of the weights stand after the point.
    """

    first: np.ndarray
    count: np.ndarray
    weights: np.ndarray
    fraction_bits: int


@lru_cache(maxsize=256)  # Frames of a video have one size, and images of a set few widths and heights.
def axis_weights(old: int, new: int, precision: Precision) -> AxisWeights:
    """Compute the weights of an axis.

    Args:
        old: places that it has, at least 1.
        new: places that it shall have, at least 1.
        precision: "pillow" for 22 bits after the point; "torch" for as many as let every weight fit 16 bits.

    Returns:
        Arrays that others share: they are not to be written to.
    """
    first, count, exact = _exact_weights(old, new)
    bits = _MOST_FRACTION_BITS if precision == "pillow" else _torch_fraction_bits(float(exact.max()))
    scaled = exact * (1 << bits)
    # Halves away from zero.
    return AxisWeights(first, count, np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int32), bits)


def _exact_weights(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute first place and count, int32[new] each, and weights, float64[new, taps], whose rows add up to 1."""
    scale = old / new
    stretch = max(scale, 1.0)
    centres = scale * (np.arange(new) + 0.5)
    first, last = (np.trunc(centres + side * _RADIUS * stretch + 0.5).clip(0, old).astype(np.int32) for side in (-1, 1))
    count = last - first
    taps = np.arange(count.max())
    distances = (first[:, None] + taps - centres[:, None] + 0.5) * (1.0 / stretch)
    curve = np.where(taps < count[:, None], _cubic(distances), 0.0)
    # Added up from the left: the last bit of a sum depends on the order.
    return first, count, curve / np.cumsum(curve, axis=1)[:, -1:]


def _cubic(x: np.ndarray) -> np.ndarray:
    """Evaluate Keys' curve, equation 4, by the distance in pixels."""
    x, a = np.abs(x), _SHARPNESS
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))


def _torch_fraction_bits(largest: float) -> int:
    """Return the most bits after the point with which the largest weight still fits a signed 16-bit integer."""
    bits = 0
    while bits < _MOST_FRACTION_BITS and int(largest * (1 << (bits + 1)) + 0.5) < 1 << _TORCH_WEIGHT_BITS:
        bits += 1
    return bits
