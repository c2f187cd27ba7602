"""The built ops of `external_ops`: found and loaded when one is first called, with a reason where they are not."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

import paddle

from paddlemix.ops_build import BUILD_COMMAND, Build, find_build, warn_once


@dataclass(frozen=True)
class Library:
    """What was found.

    Attributes:
        reason: why there are no built ops; "" where there are.
        handle: the loaded library; None where there is none.
    """

    reason: str = ""
    handle: ctypes.CDLL | None = None


@cache
def library() -> Library:
    """The built ops, loaded at the first call; what is found then holds for the process."""
    build = find_build()
    return Library(build.reason) if build.reason else _load(build, _paddle_version())


def _load(build: Build, paddle_version: str) -> Library:
    if build.about["paddle"] != paddle_version:
        return Library(
            f"they were built for Paddle {build.about['paddle']}, this is {paddle_version}, build again: "
            f"{BUILD_COMMAND}"
        )
    path = build.folder / build.about["library"]
    try:
        handle = ctypes.CDLL(str(path))
        paddle.utils.cpp_extension.extension_utils.load_op_meta_info_and_register_op(str(path))
    except OSError as error:
        return Library(f"{path} cannot be loaded, build again: {BUILD_COMMAND} ({error})")
    handle.paddlemix_instruction_set.restype = ctypes.c_char_p
    handle.paddlemix_set_num_threads(_wanted_threads())
    return Library(handle=handle)


def _paddle_version() -> str:
    for name in ("paddlepaddle", "paddlepaddle-gpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return paddle.__version__


def _wanted_threads() -> int:
    """As many as Paddle's matrix products: MKL's number, which `paddlemix` sets, before OpenMP's, which Paddle sets."""
    for variable in ("MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(variable, "").isdigit():
            return int(os.environ[variable])
    return os.cpu_count() or 1


def takes(tensor: paddle.Tensor) -> bool:
    """Whether the built ops compute with it: float32 on the CPU. Warns once where they would, but are not there."""
    if tensor.dtype != paddle.float32 or not tensor.place.is_cpu_place():
        return False
    found = library()
    if found.reason:
        warn_once(found.reason)
        return False
    return True


def run(name: str, *arguments: Any) -> list[paddle.Tensor]:
    """Call a built op.

    Args:
        name: without the prefix.
        *arguments: its inputs and attributes, in order.

    Returns:
        Its outputs.
    """
    outputs = paddle._C_ops._run_custom_op(f"paddlemix_{name}", *arguments)
    if not _asks_gradients(arguments):
        # Paddle leaves that to the op, and what follows frozen layers would compute gradients for nothing.
        for output in outputs:
            output.stop_gradient = True
    return outputs


def _asks_gradients(arguments: tuple[Any, ...]) -> bool:
    return paddle.is_grad_enabled() and any(
        isinstance(argument, paddle.Tensor) and not argument.stop_gradient for argument in arguments
    )


@cache
def nothing(dtype: str = "float32") -> paddle.Tensor:
    """A tensor without numbers, which built ops take for an input that is not given."""
    return paddle.empty([0], dtype=dtype)


def set_num_threads(threads: int) -> None:
    """Let the built ops compute on so many threads; does nothing where there are none.

    Args:
        threads: at least 1.

    Raises:
        ValueError: `threads` is less.
    """
    if threads < 1:
        raise ValueError(f"`threads` is {threads}; expected at least 1.")
    handle = library().handle
    if handle is not None:
        handle.paddlemix_set_num_threads(threads)


def num_threads() -> int:
    """Threads on which the built ops compute; 1 where there are none."""
    handle = library().handle
    return 1 if handle is None else handle.paddlemix_num_threads()


def has_fast_bfloat16() -> bool:
    """Whether built products of bfloat16 are faster than of float32 on this processor."""
    handle = library().handle
    return handle is not None and bool(handle.paddlemix_has_fast_bfloat16())
