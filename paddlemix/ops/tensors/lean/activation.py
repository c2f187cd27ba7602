"""Activations that keep their input alone."""

from __future__ import annotations

from typing import Any

import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

_STEEPNESS = 1.702


def quick_gelu(x: paddle.Tensor) -> paddle.Tensor:
    """Compute `ops.quick_gelu`, float[..., D], in float32."""
    return QuickGELU.apply(x)


class QuickGELU(PyLayer):
    """Keeps `x`, and computes its sigmoid twice."""

    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor) -> paddle.Tensor:
        """Activate."""
        ctx.save_for_backward(x)
        wide = x.astype("float32")
        return (wide * F.sigmoid(_STEEPNESS * wide)).astype(x.dtype)

    @staticmethod
    def backward(ctx: Any, upstream: paddle.Tensor) -> paddle.Tensor:
        """Differentiate."""
        (x,) = ctx.saved_tensor()
        wide = x.astype("float32")
        opened = F.sigmoid(_STEEPNESS * wide)
        slope = opened * (1.0 + _STEEPNESS * wide * (1.0 - opened))
        return (upstream.astype("float32") * slope).astype(x.dtype)
