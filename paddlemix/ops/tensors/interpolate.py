"""Resizing learned grids, such as tables of positions."""

from __future__ import annotations

import numpy as np
import paddle

from paddlemix.handover import constant

CUBIC = -0.75  # the kernel's free number, the one that PyTorch and Paddle take


def resize_grid(grid: paddle.Tensor, size: int) -> paddle.Tensor:
    """Resize a square grid of vectors bicubically, without smoothing where it shrinks.

    Args:
        grid: float[g * g, D], row by row.
        size: sides of the wanted grid, at least 1.

    Returns:
        float[size * size, D] in the dtype of `grid`, computed in float32 whatever autocast says; the edges repeat.

    Source: Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981.
    """
    side = round(grid.shape[0] ** 0.5)
    if side == size:
        return grid
    # Resizing is linear: one matmul, gradient included. Autocast would multiply in half precision, off by 0.4 %.
    with paddle.amp.auto_cast(enable=False):
        return paddle.matmul(constant(_grid_weights, side, size), grid.astype("float32")).astype(grid.dtype)


def _grid_weights(side: int, size: int) -> np.ndarray:
    """Compute what each old place adds to each new one, float32[size * size, side * side]."""
    line = _line_weights(side, size)
    return np.kron(line, line).astype(np.float32)


def _line_weights(side: int, size: int) -> np.ndarray:
    """Compute the same along one axis, float64[size, side]."""
    places = (np.arange(size) + 0.5) * side / size - 0.5
    weights = np.zeros((size, side))
    for tap in range(-1, 3):
        neighbours = np.floor(places) + tap
        column = np.clip(neighbours, 0, side - 1).astype(int)
        weights[np.arange(size), column] += _cubic_kernel(np.abs(places - neighbours))
    return weights


def _cubic_kernel(distance: np.ndarray) -> np.ndarray:
    """Compute a neighbour's weight by its distance, float64[N] of 0 to 2."""
    near = (CUBIC + 2) * distance**3 - (CUBIC + 3) * distance**2 + 1
    far = CUBIC * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    return np.where(distance <= 1, near, far)
