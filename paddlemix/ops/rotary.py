"""Rotary position embedding in its half-split form, for text (1-D and M-RoPE) and vision (2-D) alike."""

from __future__ import annotations

import paddle


def apply_rotary(x: paddle.Tensor, cos: paddle.Tensor, sin: paddle.Tensor) -> paddle.Tensor:
    """Rotate the pairs `(x[i], x[i + D/2])` of every head.

    Args:
        x: float[..., L, H, D].
        cos: float32[..., L, D/2], the cosine of each pair's angle.
        sin: float32[..., L, D/2].

    Returns:
        float[..., L, H, D] in the dtype of `x`; the rotation is done in float32.

    Source: Su et al., "RoFormer", 2021.
    """
    first, second = x.astype("float32").chunk(2, axis=-1)
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    rotated = paddle.concat([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x.dtype)
