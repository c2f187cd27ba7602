"""How Qwen-VL looks further than it was trained to: dynamic NTK and log-n attention.

Source: Bai et al., "Qwen Technical Report", 2023, section 2.3.
"""

from __future__ import annotations

from math import ceil, log, log2

import paddle

from paddlemix.handover import constant
from paddlemix.ops import rotary_frequencies


def ntk_alpha(length: int, trained_length: int) -> int:
    """Tell by how much the rotary base grows: 1 up to the trained length, 3 up to twice it, 7 up to four times it.

    Args:
        length: tokens of the prompt, padding included.
        trained_length: tokens that the model was trained on.

    Returns:
        The factor, before its exponent.
    """
    return max(2 ** ceil(log2(length / trained_length) + 1) - 1, 1)


def scaled_frequencies(base: float, size: int, alpha: float) -> paddle.Tensor:
    """Compute rotary frequencies float32[size / 2] whose slowest pair turns `alpha` times slower."""
    return constant(rotary_frequencies, base * alpha ** (size / (size - 2)), size)


def logn_factors(positions: paddle.Tensor, trained_length: int) -> paddle.Tensor:
    """Compute what queries are multiplied by, so that attention over more tokens stays as sharp.

    Args:
        positions: int64[...], from 0.
        trained_length: tokens that the model was trained on.

    Returns:
        float32[...], 1 within the trained length.

    Source: Su, "Attention's scale from entropy invariance", 2021.
    """
    return ((positions + 1).astype("float32").log() / log(trained_length)).clip(min=1.0)
