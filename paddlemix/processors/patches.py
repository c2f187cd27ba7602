"""Pixels to normalised patches in one pass."""

from __future__ import annotations

import cv2
import numpy as np

# Pixels that are looked up together: they stay in the cache until they are moved, and OpenCV, which would spread 2**18
# and more over threads of its own, does them in this one. Such threads do not survive in a forked worker.
_STRIP_PIXELS = 1 << 16


def cut(
    pixels: np.ndarray, levels: np.ndarray, patches: np.ndarray, frame: int, *, patch_size: int, merge_size: int
) -> None:
    """Cut a picture or frame into patches, in merge-window order.

    Args:
        pixels: uint8[H, W, 3]; windows cover it.
        levels: float32[3, 256], what each grey level of each channel becomes.
        patches: float32[H * W / patch_size**2, 3, frames, patch_size**2], contiguous; `frame` of it is written.
        frame: which of the frames that a patch spans.
        patch_size: pixels of a patch's side.
        merge_size: patches of a window's side.
    """
    window = patch_size * merge_size
    across, down = pixels.shape[1] // window, pixels.shape[0] // window
    # One element is a row of a patch, and is moved as one: numpy would copy its few numbers by far more slowly.
    rows = patches.view(f"V{patches.itemsize * patch_size}")
    rows = rows.reshape(down, across, merge_size, merge_size, 3, -1, patch_size)
    deep = max(_STRIP_PIXELS // (pixels.shape[1] * window), 1)
    for first in range(0, down, deep):
        strip = pixels[first * window : (first + deep) * window]
        for channel, plane in enumerate(cv2.split(strip)):
            shown = cv2.LUT(plane, levels[channel]).view(rows.dtype)
            shown = shown.reshape(-1, merge_size, patch_size, across, merge_size)
            rows[first : first + deep, :, :, :, channel, frame] = shown.transpose(0, 3, 1, 4, 2)
