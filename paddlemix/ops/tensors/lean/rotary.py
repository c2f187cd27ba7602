"""Rotary position embedding that keeps nothing but the angles, which all layers share."""

from __future__ import annotations

from typing import Any

import paddle
from paddle.autograd import PyLayer


def apply_rotary(x: paddle.Tensor, cos: paddle.Tensor, sin: paddle.Tensor) -> paddle.Tensor:
    """Compute `ops.apply_rotary`.

    Args:
        x: float[..., L, H, D].
        cos: float32[..., L, D/2].
        sin: float32[..., L, D/2].

    Returns:
        float[..., L, H, D] in the dtype of `x`.
    """
    return Rotation.apply(x, cos, sin)


class Rotation(PyLayer):
    """Turns back in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, cos: paddle.Tensor, sin: paddle.Tensor) -> paddle.Tensor:
        """Turn."""
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, upstream: paddle.Tensor) -> tuple[paddle.Tensor, None, None]:
        """Turn the gradient the other way."""
        cos, sin = ctx.saved_tensor()
        return _turned(upstream, cos, -sin), None, None


def _turned(x: paddle.Tensor, cos: paddle.Tensor, sin: paddle.Tensor) -> paddle.Tensor:
    """Turn in float32: rolled by half a head, each number meets its partner."""
    wide = x.astype("float32")
    cos, sin = (paddle.concat(both, -1).unsqueeze(-2) for both in ([cos, cos], [-sin, sin]))
    return (wide * cos + paddle.roll(wide, x.shape[-1] // 2, axis=-1) * sin).astype(x.dtype)
