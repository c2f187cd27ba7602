"""Grey images of more than 8 bits (X-rays, depth maps, industrial cameras) brought to 8 bits by a stated rule.

By bit depth, 16 bits are divided by 257 and rounded to the nearest, so that 0 and 65535 become 0 and 255; floats of 0
to 1 are multiplied by 255 and rounded, halves to the even one. Pillow would cut off everything above 255 in its place.
Images in colour are not meant: of 16 bits a channel Pillow reads the upper 8, rounded down, and drops the others.
"""

from __future__ import annotations

import logging
import threading
from functools import cache

import numpy as np
from PIL import Image

from paddlemix.media.opening import ImageError, ImageRange

logger = logging.getLogger(__name__)

_SIXTEEN_BITS = 16
# A span of values below this is a quarter of what 16 bits hold: no more than 64 of 256 levels would be seen.
_NARROW = 1 << (_SIXTEEN_BITS - 2)
_narrow_is_told = threading.Event()


def has_more_than_8_bits(image: Image.Image) -> bool:
    """Tell whether an image's values are grey levels that 8 bits do not hold."""
    return image.mode == "F" or image.mode.startswith("I")


def has_16_bits(image: Image.Image) -> bool:
    """Tell whether an image, as it was opened, has values of 0 to 65535; earlier Pillows read such PNGs in mode "I"."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")


def as_8_bits(image: Image.Image, image_range: ImageRange, name: str, *, is_16_bits: bool) -> Image.Image:
    """Bring grey levels to 8 bits.

    Args:
        image: decoded, of more than 8 bits.
        image_range: what becomes black and white; "min_max" takes the image's least and greatest value, an image of one
            value is black, and values that are no numbers are too.
        name: of the image in errors and warnings.
        is_16_bits: whether the values are 0 to 65535; see `has_16_bits`.

    Returns:
        The image in mode "L". What a PNG says is transparent is white.

    Raises:
        ImageError: by bit depth, it holds 32-bit integers, or floats outside 0 to 1.
    """
    values = np.asarray(image)
    if image_range == "min_max":
        levels = _stretched(values)
    elif is_16_bits:
        levels = _sixteen_bit_levels()[values]
        _warn_of_narrow_range(int(values.min()), int(values.max()), name)
    else:
        _refuse_unknown_range(values, image.mode, name)
        levels = np.rint(values * 255).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        levels = np.where(values == transparent, np.uint8(255), levels)
    return Image.fromarray(levels)


@cache
def _sixteen_bit_levels() -> np.ndarray:
    """Return uint8[65536]: the 8-bit level of each 16-bit value."""
    return ((np.arange(1 << _SIXTEEN_BITS) + 128) // 257).astype(np.uint8)


def _stretched(values: np.ndarray) -> np.ndarray:
    """Spread numbers [height, width] from the least to the greatest finite one over uint8[height, width]."""
    numbers = values.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
    if low == high:
        return np.zeros(values.shape, dtype=np.uint8)
    spread = np.clip((np.nan_to_num(numbers, nan=low, posinf=high, neginf=low) - low) / (high - low), 0, 1)
    return np.rint(spread * 255).astype(np.uint8)


def _refuse_unknown_range(values: np.ndarray, mode: str, name: str) -> None:
    is_float = values.dtype.kind == "f"
    # Asked this way round, NaN is refused too.
    if is_float and values.min() >= 0 and values.max() <= 1:
        return
    numbers = values[np.isfinite(values)]
    low, high = (numbers.min(), numbers.max()) if len(numbers) else (np.nan, np.nan)
    kind, expected = ("32-bit floats", "0 to 1") if is_float else ("32-bit integers", "8 or 16 bits")
    raise ImageError(
        f"image {name} holds {kind} (mode {mode}) from {low:.6g} to {high:.6g}; expected {expected}. Set "
        '`image_range` to "min_max" (IMAGE_RANGE), which scales each image from its least to its greatest value.'
    )


def _warn_of_narrow_range(low: int, high: int, name: str) -> None:
    """Tell of the first image that will hardly be seen, since a set of X-rays or depth maps holds many like it."""
    if _narrow_is_told.is_set() or not 0 < high - low < _NARROW:
        return
    _narrow_is_told.set()
    logger.warning(
        "image %s uses %d of its %d bits (%d to %d), so by bit depth little of it is seen. `image_range` \"min_max\" "
        "(IMAGE_RANGE) scales each image from its least to its greatest value. Others like it are not told.",
        name, high.bit_length(), _SIXTEEN_BITS, low, high,
    )  # fmt: skip
