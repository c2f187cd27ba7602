"""In which precision a model answers here."""

from __future__ import annotations

from paddlemix._environment import gpu_is_usable

DTYPES = ("bfloat16", "float16", "float32")


def usable_dtype(asked: str | None) -> str:
    """Choose the precision that was asked for, or the one that suits this machine.

    Args:
        asked: one of `DTYPES`; None leaves the choice.

    Returns:
        What was asked for; else bfloat16 on a GPU, and float32 without one.

    Raises:
        ValueError: half precision was asked for, and Paddle sees no GPU.
    """
    if asked is None:
        return "bfloat16" if gpu_is_usable() else "float32"
    if asked != "float32" and not gpu_is_usable():
        raise ValueError(
            f"--dtype {asked} needs a GPU, and Paddle sees none: its CPU build has no kernels for half precision. "
            "Take --dtype float32, or leave the flag out."
        )
    return asked
