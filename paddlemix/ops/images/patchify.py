"""Pixels to normalised patches in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paddlemix.ops.images import built
from paddlemix.ops.images.checks import check_dtype, check_image, check_size

CHANNELS, LEVELS = 3, 256


def patchify(
    frames: Sequence[np.ndarray],
    levels: np.ndarray,
    *,
    patch_size: int,
    merge_size: int,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Cut the frames that patches span into normalised patches, in merge-window order.

    Args:
        frames: uint8[H, W, 3] each, of one size, which windows cover; a still image is given several times over.
        levels: float32[3, 256], what each grey level of each channel becomes.
        patch_size: pixels of a patch's side.
        merge_size: patches of a window's side; windows follow one another along rows, patches along a window's rows.
        out: where to write, contiguous and of the result's shape; None for a new array.

    Returns:
        float32[H * W / patch_size**2, 3 * len(frames) * patch_size**2]: channels, then frames, then rows of pixels.

    Raises:
        ValueError: an argument is not as described.

    Source: Wang et al., "Qwen2-VL", 2024, section 2.1, arXiv:2409.12191.
    """
    _check_frames(frames, patch_size, merge_size)
    check_dtype("levels", levels, np.float32)
    if levels.shape != (CHANNELS, LEVELS):
        raise ValueError(f"`levels` has shape {list(levels.shape)}; expected [{CHANNELS}, {LEVELS}].")
    height, width = frames[0].shape[:2]
    shape = (height * width // patch_size**2, CHANNELS * len(frames) * patch_size**2)
    patches = np.empty(shape, dtype=np.float32) if out is None else _checked_out(out, shape)
    if (library := built.wanted_library()) is not None:
        library.patchify(frames, levels, patch_size, merge_size, patches)
    else:
        _write_patches(frames, levels, patch_size, merge_size, patches)
    return patches


def patchify_reference(
    frames: Sequence[np.ndarray], levels: np.ndarray, *, patch_size: int, merge_size: int
) -> np.ndarray:
    """Compute `patchify` in its readable form."""
    height, width = frames[0].shape[:2]
    patches = np.empty((height * width // patch_size**2, CHANNELS * len(frames) * patch_size**2), dtype=np.float32)
    _write_patches(frames, levels, patch_size, merge_size, patches)
    return patches


def _write_patches(
    frames: Sequence[np.ndarray], levels: np.ndarray, patch_size: int, merge_size: int, patches: np.ndarray
) -> None:
    window = patch_size * merge_size
    down, across = frames[0].shape[0] // window, frames[0].shape[1] // window
    cells = patches.reshape(down, across, merge_size, merge_size, CHANNELS, len(frames), patch_size, patch_size)
    for place, frame in enumerate(frames):
        for channel in range(CHANNELS):
            shown = levels[channel][frame[..., channel]]
            shown = shown.reshape(down, merge_size, patch_size, across, merge_size, patch_size)
            cells[:, :, :, :, channel, place] = shown.transpose(0, 3, 1, 4, 2, 5)


def _check_frames(frames: Sequence[np.ndarray], patch_size: int, merge_size: int) -> None:
    check_size("patch_size", patch_size)
    check_size("merge_size", merge_size)
    if not frames:
        raise ValueError("`frames` is empty; expected at least one frame.")
    for place, frame in enumerate(frames):
        check_image(f"frames[{place}]", frame)
        if frame.shape != frames[0].shape:
            raise ValueError(f"`frames[{place}]` has shape {list(frame.shape)}; the first has {list(frames[0].shape)}.")
    window = patch_size * merge_size
    if any(side % window for side in frames[0].shape[:2]):
        raise ValueError(
            f"`frames` have shape {list(frames[0].shape)}; expected sides that are multiples of `patch_size` times "
            f"`merge_size`, {window}."
        )


def _checked_out(out: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    check_dtype("out", out, np.float32)
    if out.shape != shape or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(f"`out` has shape {list(out.shape)}; expected {list(shape)}, contiguous and writeable.")
    return out
