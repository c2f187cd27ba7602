"""The built image ops of `external_ops`: a library without Paddle, loaded when an op is first called.

ctypes lets Python's other threads run while it calls.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from paddlemix.ops.build import BUILD_COMMAND, Build, find_build, warn_once
from paddlemix.ops.images.weights import AxisWeights

LIBRARY_KEY = "images"


class _Axis(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("size", "taps", "bits")),
        *((name, ctypes.c_void_p) for name in ("first", "count", "weights")),
    )


class _Resize(ctypes.Structure):
    _fields_ = (
        ("from_", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("height", "width", "stride")),
        *((name, ctypes.POINTER(_Axis)) for name in ("across", "down")),
        ("to", ctypes.c_void_p),
    )


class _Patchify(ctypes.Structure):
    _fields_ = (
        ("frames", ctypes.POINTER(ctypes.c_void_p)),
        *((name, ctypes.c_int64) for name in ("frame_count", "height", "width", "patch_size", "merge_size")),
        *((name, ctypes.c_void_p) for name in ("levels", "patches")),
    )


class Library:
    """The loaded library.

    Args:
        path: of its file.

    Attributes:
        instruction_set: the name of the kernels that it runs.

    Raises:
        OSError: it cannot be loaded.
    """

    instruction_set: str

    def __init__(self, path: Path) -> None:
        self._handle = ctypes.CDLL(str(path))
        self._handle.paddlemix_image_instruction_set.restype = ctypes.c_char_p
        self.instruction_set = self._handle.paddlemix_image_instruction_set().decode()

    def resize(self, pixels: np.ndarray, across: AxisWeights | None, down: AxisWeights | None) -> np.ndarray:
        """Filter uint8[H, W, 3] along rows, then along columns; None leaves a side as it is."""
        if pixels.strides[1:] != (3, 1):
            pixels = np.ascontiguousarray(pixels)
        height, width = pixels.shape[:2]
        shape = [old if axis is None else len(axis.first) for axis, old in ((down, height), (across, width))]
        resized = np.empty((*shape, 3), dtype=np.uint8)
        axes = (axis if axis is None else ctypes.pointer(_as_struct(axis)) for axis in (across, down))
        op = _Resize(pixels.ctypes.data, height, width, pixels.strides[0], *axes, resized.ctypes.data)
        _check(self._handle.paddlemix_resize(ctypes.byref(op)))
        return resized

    def patchify(
        self, frames: Sequence[np.ndarray], levels: np.ndarray, patch_size: int, merge_size: int, patches: np.ndarray
    ) -> None:
        """Cut frames, uint8[H, W, 3] each, into an array of patches."""
        # Frames that are one array stay one, and are normalised once.
        dense = {id(frame): np.ascontiguousarray(frame) for frame in frames}
        pointers = (ctypes.c_void_p * len(frames))(*(dense[id(frame)].ctypes.data for frame in frames))
        levels = np.ascontiguousarray(levels)
        height, width = frames[0].shape[:2]
        sizes = (len(frames), height, width, patch_size, merge_size)
        op = _Patchify(pointers, *sizes, levels.ctypes.data, patches.ctypes.data)
        _check(self._handle.paddlemix_patchify(ctypes.byref(op)))


def _as_struct(axis: AxisWeights) -> _Axis:
    size, taps = axis.weights.shape
    arrays = (axis.first, axis.count, axis.weights)
    return _Axis(size, taps, axis.fraction_bits, *(array.ctypes.data for array in arrays))


def _check(status: int) -> None:
    if status:
        raise MemoryError("no memory is left for an image")


@cache
def find_library() -> tuple[Library | None, str]:
    """Find the library, or why there is none; what is found at the first call holds for the process."""
    build = find_build()
    return (None, build.reason) if build.reason else _load(build)


def _load(build: Build) -> tuple[Library | None, str]:
    if LIBRARY_KEY not in build.about:
        return None, f"the build in {build.folder} has no image ops, build again: {BUILD_COMMAND}"
    path = build.folder / build.about[LIBRARY_KEY]
    try:
        return Library(path), ""
    except OSError as error:
        return None, f"{path} cannot be loaded, build again: {BUILD_COMMAND} ({error})"


def wanted_library() -> Library | None:
    """Return the library; warn once where there is none."""
    library, reason = find_library()
    if library is None:
        warn_once(reason)
    return library
