"""In which precision a model answers here."""

from __future__ import annotations

from paddlemix._environment import gpu_is_usable, is_older_than_ampere

DTYPES = ("bfloat16", "float16", "float32")


def usable_dtype(asked: str | None) -> str:
    """Choose the precision that was asked for, or the one that suits this machine.

    Args:
        asked: one of `DTYPES`; None leaves the choice.

    Returns:
        What was asked for; else bfloat16 on a GPU, float16 on one that is older than Ampere, and float32 without one.

    Raises:
        ValueError: half precision was asked for and Paddle sees no GPU, or bfloat16 and the GPU is older than Ampere.
    """
    if asked is None:
        halved = "float16" if is_older_than_ampere() else "bfloat16"
        return halved if gpu_is_usable() else "float32"
    if asked != "float32" and not gpu_is_usable():
        raise ValueError(
            f"--dtype {asked} needs a GPU, and Paddle sees none: its CPU build has no kernels for half precision. "
            "Take --dtype float32, or leave the flag out."
        )
    if asked == "bfloat16" and is_older_than_ampere():
        raise ValueError(
            "--dtype bfloat16 needs a card of compute capability 8.0 (Ampere) or later, and this one is older. Take "
            "--dtype float16, or --dtype float32 where a model overflows in it."
        )
    return asked
