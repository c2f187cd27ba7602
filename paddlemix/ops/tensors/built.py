"""The built ops of `external_ops`, for CPUs and GPUs: found and loaded when one is first called."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

import paddle

from paddlemix._environment import (
    compute_capability,
    may_take_fewer_threads,
    read_cpuinfo,
    usable_cores,
    waiting_adapts,
)
from paddlemix.ops.build import BUILD_COMMAND, CUDA_INTERFACE, Build, find_build, warn_once
from paddlemix.ops.denormals import are_to_be_flushed
from paddlemix.ops.probing.kept import Machine, Speed, find_speed
from paddlemix.ops.probing.measure import declare, measure, take

# That the ops for GPUs compute with; the place of each is what c_api.h calls it.
CUDA_DTYPES = (paddle.float32, paddle.bfloat16, paddle.float16)


@dataclass
class Library:
    """What was found.

    Attributes:
        reason: why there are no built ops; "" where there are.
        handle: the loaded library; None where there is none.
        speed: how fast it computes products here, and what computes them; None of ops for GPUs.
    """

    reason: str = ""
    handle: ctypes.CDLL | None = None
    speed: Speed | None = None


@cache
def library() -> Library:
    """Load the built ops at the first call; what is found then holds for the process."""
    return _find("library")


@cache
def cuda_library() -> Library:
    """Load the ops built for CUDA, likewise."""
    return _find("cuda_library")


def _find(which: str) -> Library:
    build = find_build()
    return Library(build.reason) if build.reason else _load(build, _paddle_version(), which)


def _load(build: Build, paddle_version: str, which: str = "library") -> Library:
    if build.about["paddle"] != paddle_version:
        return Library(
            f"they were built for Paddle {build.about['paddle']}, this is {paddle_version}, build again: "
            f"{BUILD_COMMAND}"
        )
    if which not in build.about:
        return Library(f"they were built where Paddle had no CUDA, build again: {BUILD_COMMAND}")
    if which == "cuda_library" and (reason := _why_not_on(compute_capability(), build)):
        return Library(reason)
    path = build.folder / build.about[which]
    try:
        handle = ctypes.CDLL(str(path))
        paddle.utils.cpp_extension.extension_utils.load_op_meta_info_and_register_op(str(path))
    except OSError as error:
        return Library(f"{path} cannot be loaded, build again: {BUILD_COMMAND} ({error})")
    if which != "library":
        return Library(handle=handle)
    handle.paddlemix_instruction_set.restype = ctypes.c_char_p
    declare(handle)
    handle.paddlemix_adapt_waiting(waiting_adapts(os.environ))
    handle.paddlemix_flush_denormals(are_to_be_flushed(os.environ))
    return Library(handle=handle, speed=_settle(handle, build))


def _settle(handle: ctypes.CDLL, build: Build) -> Speed:
    """Measure what computes products fastest, where that is not known yet, and let it compute."""
    threads, takes_fewer = _wanted_threads(), may_take_fewer_threads(os.environ)
    versions = " ".join(f"{name} {build.about.get(name)}" for name in ("interface", "onednn", "paddle"))
    machine = Machine.here(read_cpuinfo(), usable_cores(), threads, versions, takes_fewer=takes_fewer)
    speed = find_speed(machine, lambda: measure(handle, threads, takes_fewer=takes_fewer))
    _take(handle, speed)
    return speed


def _take(handle: ctypes.CDLL, speed: Speed) -> None:
    take(handle, speed.choice)
    if speed.choice.threads < speed.machine.threads:
        paddle.base.core.set_num_threads(speed.choice.threads)  # of Paddle's own products


def take_speed(speed: Speed) -> None:
    """Compute as another process of this machine does, so that none differs from the others.

    Args:
        speed: what it has measured; that of another machine is left alone.
    """
    found = library()
    if found.handle is not None and found.speed is not None and found.speed.machine == speed.machine:
        found.speed = speed
        _take(found.handle, speed)


def _why_not_on(capability: tuple[int, int] | None, build: Build) -> str:
    """Say why the ops that are built for CUDA do not serve here; "" where they do."""
    if build.about.get("cuda_interface") != CUDA_INTERFACE:
        return f"they are of another version of paddlemix, build again: {BUILD_COMMAND}"
    return _why_no_code(build.about.get("cuda_code", ""), capability)


def _why_no_code(code: str, capability: tuple[int, int] | None) -> str:
    """Say why a library has no code for a card; "" where it has.

    Args:
        code: in nvcc's words: `sm_80` runs on cards of 8.0 up to 8.9, `compute_90`, which the driver compiles, on those
            of 9.0 and later.
        capability: the card's.

    Returns:
        A clause without a full stop.
    """
    if not code:
        return f"their build does not say for which cards it is, build again: {BUILD_COMMAND}"
    if capability is None or any(_runs(word, capability) for word in code.split()):
        return ""
    card = ".".join(map(str, capability))
    return f"they have code for {code.replace(' ', ', ')}, and this card has compute capability {card}"


def _runs(word: str, capability: tuple[int, int]) -> bool:
    kind, number = word.split("_")
    made_for = divmod(int(number), 10)
    return made_for <= capability and (kind == "compute" or made_for[0] == capability[0])


def _paddle_version() -> str:
    for name in ("paddlepaddle", "paddlepaddle-gpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return paddle.__version__


def _wanted_threads() -> int:
    """Take as many as Paddle's products: MKL's number, which `paddlemix` sets, before OpenMP's, which Paddle sets."""
    for variable in ("MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(variable, "").isdigit():
            return int(os.environ[variable])
    return os.cpu_count() or 1


def takes(tensor: paddle.Tensor, *others: paddle.Tensor | None, on_cuda: bool = False, is_mixed: bool = False) -> bool:
    """Tell whether a built op computes with tensors; warn once where it would, but is not there.

    Args:
        tensor: float32 on the CPU; on a GPU float32, bfloat16 or float16.
        *others: what must have the same dtype; autocast may bring another.
        on_cuda: whether the op is built for GPUs too.
        is_mixed: whether the op for GPUs takes float32 and one narrower dtype together.

    Returns:
        Whether `run` may be called.
    """
    if on_cuda and on_gpu(tensor):
        dtypes = {one.dtype for one in (tensor, *others) if one is not None}
        return fits_cuda(dtypes, is_mixed=is_mixed) and _is_there("CUDA", cuda_library())
    if any(other is not None and other.dtype != tensor.dtype for other in others):
        return False
    return tensor.place.is_cpu_place() and tensor.dtype == paddle.float32 and _is_there("CPU", library())


def on_gpu(tensor: paddle.Tensor) -> bool:
    """Tell whether a tensor is on a GPU, where autocast is, and lean formulas where no op is built."""
    return tensor.place.is_gpu_place()


def fits_cuda(dtypes: Collection[paddle.dtype], *, is_mixed: bool) -> bool:
    """Tell whether an op that is built for GPUs takes tensors of such dtypes together."""
    narrower = set(dtypes) - {paddle.float32}
    return narrower <= set(CUDA_DTYPES) and len(narrower) <= 1 and (is_mixed or len(set(dtypes)) == 1)


def _is_there(place: str, found: Library) -> bool:
    if found.reason:
        warn_once(found.reason, place)
    return not found.reason


def run(name: str, *arguments: Any) -> list[paddle.Tensor]:
    """Call a built op.

    Args:
        name: without the prefix.
        *arguments: its inputs, tensors or lists of them, and attributes, in order; the place of the first says which
            library computes.

    Returns:
        Its outputs.
    """
    first = arguments[0][0] if isinstance(arguments[0], list) else arguments[0]
    prefix = "paddlemix_cuda_" if first.place.is_gpu_place() else "paddlemix_"
    outputs = paddle._C_ops._run_custom_op(prefix + name, *arguments)
    if not _asks_gradients(arguments):
        # Paddle leaves that to the op, and what follows frozen layers would compute gradients for nothing.
        for output in outputs:
            output.stop_gradient = True
    return outputs


def _asks_gradients(arguments: tuple[Any, ...]) -> bool:
    return paddle.is_grad_enabled() and any(
        isinstance(argument, paddle.Tensor) and not argument.stop_gradient for argument in arguments
    )


def code_of(dtype: paddle.dtype) -> int:
    """Name one of CUDA_DTYPES as the ops for GPUs take it."""
    return CUDA_DTYPES.index(dtype)


@cache
def nothing(dtype: str = "float32") -> paddle.Tensor:
    """Make a tensor without numbers, which built ops take for an input that is not given."""
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
    """Return the number of threads on which the built ops compute; 1 where there are none."""
    handle = library().handle
    return 1 if handle is None else handle.paddlemix_num_threads()


def threads_wait_awake() -> bool:
    """Tell whether idle threads of the built ops wait awake now, as they do while the cores are free.

    Where other programs want the cores they sleep, and waking one takes tens of microseconds. With one that computes
    beside it, the demo took 3.6 steps a second with threads that always wait awake, and 4.2 with threads that sleep;
    alone 6.0 and 5.2. See `paddlemix._environment.wait_asleep` for how to choose.

    Returns:
        What the user has chosen, where that is so; False where there are no built ops.
    """
    handle = library().handle
    return handle is not None and bool(handle.paddlemix_threads_wait_awake())


def speed() -> Speed | None:
    """Return what was measured of this machine's products; None without the built ops."""
    return library().speed
