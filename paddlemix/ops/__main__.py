"""Prints which implementation each op uses here, and why: `python -m paddlemix.ops`."""

from __future__ import annotations

import paddle

from paddlemix.ops import built
from paddlemix.picture_ops.built import find_library

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
)
PICTURE_OPS = ("patchify", "resize_bicubic")


def describe() -> str:
    """A line for each op, below what was found."""
    found = built.library()
    if found.handle is None:
        lines = [f"No built ops: {found.reason}."]
        choice = "reference"
    else:
        bfloat16 = "yes" if built.has_fast_bfloat16() else "no, cpu_compute_dtype bfloat16 computes in float32"
        lines = [
            f"Built ops: {found.handle.paddlemix_instruction_set().decode()} kernels, {built.num_threads()} threads.",
            f"Fast bfloat16 products: {bfloat16}.",
        ]
        choice = "built for float32 on the CPU, else reference"
    if not paddle.get_device().startswith("cpu"):
        lines.append(f"Paddle computes on {paddle.get_device()}, where the reference calls Paddle's own kernels.")
    return "\n".join([*lines, *(f"  {name:<22} {choice}" for name in OPS), *_describe_picture_ops()])


def _describe_picture_ops() -> list[str]:
    library, reason = find_library()
    if library is None:
        found, choice = f"No built picture ops: {reason}.", "reference"
    else:
        found, choice = f"Built picture ops: {library.instruction_set} kernels, on the calling thread.", "built"
    return [found, *(f"  {name:<22} {choice}" for name in PICTURE_OPS)]


if __name__ == "__main__":
    print(describe())
