"""Errors for arguments that do not fit an op on images."""

from __future__ import annotations

import numpy as np


def check_image(name: str, pixels: np.ndarray) -> None:
    """Make sure that an argument is an image in RGB.

    Args:
        name: of the argument.
        pixels: the argument.

    Raises:
        ValueError: it is no array of uint8[H, W, 3].
    """
    check_dtype(name, pixels, np.uint8)
    if pixels.ndim != 3 or pixels.shape[-1] != 3:
        raise ValueError(f"`{name}` has shape {list(pixels.shape)}; expected [height, width, 3].")


def check_dtype(name: str, array: np.ndarray, wanted: type[np.generic]) -> None:
    """Make sure that an argument is an array of a dtype.

    Args:
        name: of the argument.
        array: the argument.
        wanted: its dtype.

    Raises:
        ValueError: it is no array, or of another dtype.
    """
    if not isinstance(array, np.ndarray):
        raise ValueError(f"`{name}` is a {type(array).__name__}; expected an array of {np.dtype(wanted)}.")
    if array.dtype != wanted:
        raise ValueError(f"`{name}` is {array.dtype}; expected {np.dtype(wanted)}.")


def check_size(name: str, value: int) -> None:
    """Make sure that an argument is a number of pixels or patches.

    Args:
        name: of the argument.
        value: the argument.

    Raises:
        ValueError: it is below 1.
    """
    if value < 1:
        raise ValueError(f"`{name}` is {value}; expected at least 1.")
