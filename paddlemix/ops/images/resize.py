"""Bicubic resizing of images in whole numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from paddlemix.ops.images import built
from paddlemix.ops.images.checks import check_image, check_size
from paddlemix.ops.images.weights import PRECISIONS, AxisWeights, Precision, axis_weights

TALL = 100  # times as high as wide
Filter = Callable[[np.ndarray, AxisWeights | None, AxisWeights | None], np.ndarray]


def resize_bicubic(pixels: np.ndarray, width: int, height: int, *, precision: Precision = "pillow") -> np.ndarray:
    """Resize an image or frame bicubically, with antialiasing where it shrinks.

    Rows are filtered first and columns then. Pillow does it the other way round, and "pillow" too, where an image is
    more than 100 times as high as wide and shrinks in height. After each pass values are rounded to whole grey levels.

    Args:
        pixels: uint8[H, W, 3], no side of 0; any strides.
        width: pixels.
        height: pixels.
        precision: of the weights. "pillow" gives, bit by bit, what Pillow up to its release 12 does (13 filters columns
            first), by which published models were shown images; "torch" what PyTorch gives, by which they were shown
            videos. They differ by up to 2 levels on smooth images and 13 on noise (measured).

    Returns:
        uint8[height, width, 3], an array of its own.

    Raises:
        ValueError: an argument is not as described.

    Source: Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981.
    """
    check_image("pixels", pixels)
    if not pixels.size:
        raise ValueError(f"`pixels` has shape {list(pixels.shape)}; expected an image of at least 1 x 1.")
    check_size("width", width)
    check_size("height", height)
    if precision not in PRECISIONS:
        raise ValueError(f"`precision` is {precision!r}; expected one of {', '.join(PRECISIONS)}.")
    library = built.wanted_library()
    return _resize(_filter_sides if library is None else library.resize, pixels, width, height, precision)


def resize_bicubic_reference(
    pixels: np.ndarray, width: int, height: int, *, precision: Precision = "pillow"
) -> np.ndarray:
    """Compute `resize_bicubic` in its readable form."""
    return _resize(_filter_sides, pixels, width, height, precision)


def _resize(filter_sides: Filter, pixels: np.ndarray, width: int, height: int, precision: Precision) -> np.ndarray:
    old_height, old_width = pixels.shape[:2]
    across = None if width == old_width else axis_weights(old_width, width, precision)
    down = None if height == old_height else axis_weights(old_height, height, precision)
    # Pillow filters the columns first where a very tall image shrinks in height.
    if precision == "pillow" and old_height > TALL * old_width and height < old_height:
        return filter_sides(filter_sides(pixels, None, down), across, None)
    return filter_sides(pixels, across, down)


def _filter_sides(pixels: np.ndarray, across: AxisWeights | None, down: AxisWeights | None) -> np.ndarray:
    """Filter along rows, then along columns; None leaves a side as it is."""
    if across is not None:
        pixels = _filter_first_axis(pixels.transpose(1, 0, 2), across).transpose(1, 0, 2)
    if down is not None:
        pixels = _filter_first_axis(pixels, down)
    return np.array(pixels, order="C")


def _filter_first_axis(values: np.ndarray, axis: AxisWeights) -> np.ndarray:
    """Filter uint8[old, ...] to uint8[new, ...]."""
    from scipy.sparse import csr_matrix  # takes long to import, and built ops do without

    new, taps = axis.weights.shape
    used = np.arange(taps) < axis.count[:, None]
    places = (axis.first[:, None] + np.arange(taps))[used]
    starts = np.concatenate([[0], np.cumsum(axis.count)])
    takes = csr_matrix((axis.weights[used], places, starts), shape=(new, len(values)))
    sums = takes @ values.reshape(len(values), -1).astype(np.int32)
    sums += 1 << (axis.fraction_bits - 1)
    sums >>= axis.fraction_bits
    return sums.clip(0, 255, out=sums).astype(np.uint8).reshape(new, *values.shape[1:])
