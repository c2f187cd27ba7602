"""Prints which implementation each op uses here, and why: `python -m paddlemix.ops`."""

from __future__ import annotations

import os

import paddle

from paddlemix.ops.denormals import CHOICE_VARIABLE, FLUSH, KEEP, are_to_be_flushed
from paddlemix.ops.images.built import find_library
from paddlemix.ops.probing.kept import Speed
from paddlemix.ops.tensors import built

OPS = (
    "linear",
    "attention",
    "segment_attention",
    "rms_norm",
    "add_rms_norm",
    "layer_norm",
    "apply_rotary",
    "rotate_pair",
    "rotate_split",
    "swiglu",
    "gelu",
    "quick_gelu",
    "linear_cross_entropy",
    "decode_block",
    "cached_attention",
    "adamw_step",
    "squared_norms",
)
IMAGE_OPS = ("patchify", "resize_bicubic")


# What Paddle has kernels of its own for, as good as any: its products, flash attention, and AdamW with its clipping.
LEFT_TO_PADDLE_ON_GPUS = ("linear", "attention", "segment_attention", "adamw_step", "squared_norms")


def describe() -> str:
    """List what was found, then a line for each op."""
    if paddle.get_device().startswith("gpu"):
        lines, choice = _describe_cuda()
        choices = {name: "Paddle's own kernels" if name in LEFT_TO_PADDLE_ON_GPUS else choice for name in OPS}
        choices["decode_block"] = "not there; a block's layers are called"
        if built.cuda_library().handle is None:
            choices["cached_attention"] = "Paddle's own kernels"
    else:
        lines, choice = _describe_cpu()
        choices = {**dict.fromkeys(OPS, choice), "cached_attention": "not needed; decode_block is there"}
    lines += [_describe_denormals(), *(f"  {name:<22} {choice}" for name, choice in choices.items())]
    return "\n".join([*lines, *_describe_image_ops()])


def _describe_cpu() -> tuple[list[str], str]:
    found = built.library()
    if found.handle is None:
        return [f"No built ops: {found.reason}."], "reference"
    kernels = found.handle.paddlemix_instruction_set().decode()
    lines = [f"Built ops: {kernels} kernels, {built.num_threads()} threads."]
    if found.speed is not None:
        lines += _describe_speed(found.speed)
    return lines, "built for float32 on the CPU, else reference"


def _describe_speed(speed: Speed) -> list[str]:
    rates, choice, machine = speed.rates, speed.choice, speed.machine
    by_threads = [f"{_rate(rate)} on {threads}" for threads, rate in rates.threads.items()]
    rows = [
        f"{height}: {_rate(rate)} and {_rate(rates.few_rows_by_library[height])}"
        for height, rate in rates.few_rows.items()
    ]
    taken = "bfloat16" if choice.rounding_pays else "float32"
    untried = "other programs were in the way" if machine.takes_fewer else "the environment says how many"
    return [
        f"Measured once on {machine.processor}, {machine.cores} cores, by {1000 * rates.seconds:.0f} ms of work, in "
        "GFLOP/s of one thread:",
        f"  threads: {', '.join(by_threads) or 'not measured, ' + untried}; {choice.threads} compute.",
        f"  products in float32: {_rate(rates.onednn)} by oneDNN, {_rate(rates.mkl)} by MKL; "
        f"{'MKL' if choice.mkl else 'oneDNN'} computes.",
        f"  products from bfloat16, rounding counted: {_rate(rates.bfloat16)} in bfloat16, {_rate(rates.widened)} held "
        f"in float32; cpu_compute_dtype auto takes {taken}.",
        f"  products of few rows, by our registers and by the library: {', '.join(rows)}; up to {choice.few_rows} by "
        "ours.",
    ]


def _rate(rate: float) -> str:
    return f"{rate:.0f}" if rate else "none"


def _describe_cuda() -> tuple[list[str], str]:
    found = built.cuda_library()
    if found.handle is None:
        return [f"No built ops for {paddle.get_device()}: {found.reason}."], "reference, of Paddle's own kernels"
    return [f"Built ops for {paddle.get_device()}."], "built for float32, bfloat16 and float16, else reference"


def _describe_denormals() -> str:
    what = (
        "flushed to 0"
        if are_to_be_flushed(os.environ)
        else "kept, for which some processors take a hundred times as long"
    )
    choice = f"{CHOICE_VARIABLE}={FLUSH} or {KEEP}"
    return f"Denormal numbers, below 1.2e-38 in float32: {what} ({choice})."


def _describe_image_ops() -> list[str]:
    library, reason = find_library()
    if library is None:
        found, choice = f"No built image ops: {reason}.", "reference"
    else:
        found, choice = f"Built image ops: {library.instruction_set} kernels, on the calling thread.", "built"
    return [found, *(f"  {name:<22} {choice}" for name in IMAGE_OPS)]


if __name__ == "__main__":
    print(describe())
