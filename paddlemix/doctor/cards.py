"""The cards: whether Paddle sees them, their driver, and what they compute."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Sequence

import paddle

from paddlemix._environment import AMPERE, gpu_is_usable
from paddlemix.doctor.finding import Finding
from paddlemix.doctor.installed import GPU_PADDLE

_GIB = 1 << 30


def check_cards() -> list[Finding]:
    """Look at each card: its name, compute capability and memory."""
    if not paddle.is_compiled_with_cuda():
        if driver_version() is None:
            return [Finding("card", "none; Paddle computes on the CPU")]
        advice = f"To compute on the card: pip uninstall paddlepaddle, then {GPU_PADDLE}"
        return [Finding("card", "an NVIDIA driver is here, but Paddle is built for the CPU", advice)]
    if not gpu_is_usable():
        shown = os.environ.get("CUDA_VISIBLE_DEVICES")
        found = "Paddle is built for CUDA, and sees none"
        if shown is not None:
            return [Finding("card", f"{found} (CUDA_VISIBLE_DEVICES={shown!r})", "Unset that variable.", stops=True)]
        advice = "`nvidia-smi` should list it; a container needs `--gpus all`. Without one, take Paddle for the CPU."
        return [Finding("card", found, advice, stops=True)]
    return [_check_card(index) for index in range(paddle.device.cuda.device_count())]


def _check_card(index: int) -> Finding:
    card = paddle.device.cuda.get_device_properties(index)
    capability = (card.major, card.minor)
    found = (
        f"{card.name}, compute capability {card.major}.{card.minor}, {card.total_memory / _GIB:.1f} GiB, "
        f"{card.multi_processor_count} multiprocessors"
    )
    subject = f"card {index}"
    codes = [divmod(int(digits[0]), 10) for code in _codes() if (digits := re.match(r"\d+", str(code)))]
    if codes and not any(code <= capability and code[0] == card.major for code in codes):
        advice = (
            f"This Paddle has code for {', '.join(map(str, _codes()))} alone, which this card may not run: install the "
            "Paddle of another CUDA, whose folder of the index names it."
        )
        return Finding(subject, found, advice)
    if capability < AMPERE:
        advice = (
            'It has no bfloat16 (8.0 and later have): write "fp16": true in place of "bf16": true. It has no flash '
            "attention either, so long inputs take more memory."
        )
        return Finding(subject, found, advice)
    return Finding(subject, f"{found}: bfloat16 and float16")


def _codes() -> Sequence[int | str]:
    """Give the architectures that Paddle holds code for, such as 80, where its build says so."""
    return paddle.version.cuda_archs() or ()


def check_driver() -> Finding:
    """Compare the newest CUDA that the driver runs with the one that Paddle was built for."""
    version = driver_version()
    shown = "none" if version is None else f"runs CUDA up to {version[0]}.{version[1]}"
    if not paddle.is_compiled_with_cuda():
        return Finding("driver", f"{shown}; a Paddle for the CPU needs none")
    wanted = paddle.version.cuda()
    if version is None:
        advice = "Install NVIDIA's driver (in a container, on its host)."
        return Finding("driver", "libcuda.so.1 cannot be loaded", advice, stops=True)
    if version[0] < int(wanted.split(".")[0]):
        advice = "Update the driver, or install the Paddle of an earlier CUDA, whose folder of the index names it."
        return Finding("driver", f"{shown}, and Paddle is built for {wanted}", advice, stops=True)
    return Finding("driver", f"{shown}, Paddle is built for {wanted}")


def driver_version() -> tuple[int, int] | None:
    """Ask NVIDIA's driver for the newest CUDA that it runs.

    Returns:
        Such as (12, 6); None where there is no driver.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        number = ctypes.c_int()
        status = driver.cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return None
    return None if status or not number.value else (number.value // 1000, number.value % 1000 // 10)


def check_flash_attention() -> Finding:
    """Tell whether attention is computed without holding its scores."""
    if not gpu_is_usable():
        return Finding("flash attention", "on GPUs alone; on the CPU a built op holds no scores either")
    if paddle.device.cuda.get_device_capability() < AMPERE:
        advice = "It needs compute capability 8.0. A smaller `max_length` or `max_pixels` keeps the scores small."
        return Finding("flash attention", "not on this card", advice)
    return Finding("flash attention", "for bfloat16 and float16")


def check_ranks() -> Finding:
    """Tell what joins several processes of a run."""
    if not paddle.distributed.is_available():
        return Finding("several cards", "this Paddle is built without", "Train in one process, or install its wheel.")
    if not gpu_is_usable():
        return Finding("several cards", "none; processes on the CPU are joined by gloo")
    if not paddle.base.core.is_compiled_with_nccl():
        return Finding("NCCL", "this Paddle is built without it", "Train on one card, or install Paddle's own wheel.")
    return Finding("NCCL", f"{_nccl(paddle.version.nccl())}; {paddle.device.cuda.device_count()} cards are visible")


def _nccl(code: str) -> str:
    """Write NCCL's version, such as 22703, with its points."""
    if not code.isdigit() or len(code) < 4:
        return code
    thousands = 10000 if len(code) > 4 else 1000
    number = int(code)
    return f"{number // thousands}.{number % thousands // 100}.{number % 100}"
