"""Normalisation that keeps its input and a number a row."""

from __future__ import annotations

from typing import Any

import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer


def rms_norm(x: paddle.Tensor, weight: paddle.Tensor, epsilon: float, dtype: paddle.dtype) -> paddle.Tensor:
    """Compute `ops.rms_norm` in float32, and round the result to a dtype.

    Args:
        x: float[..., D].
        weight: float[D], of a dtype of its own.
        epsilon: added to the mean square.
        dtype: of the result.

    Returns:
        dtype[..., D].
    """
    return RMSNorm.apply(x, weight, epsilon, dtype)


def layer_norm(
    x: paddle.Tensor, weight: paddle.Tensor | None, bias: paddle.Tensor | None, epsilon: float, dtype: paddle.dtype
) -> paddle.Tensor:
    """Compute `ops.layer_norm` in float32 by Paddle's one kernel, and round the result to a dtype.

    Args:
        x: float[..., D].
        weight: float[D]; None for ones.
        bias: likewise; None for zeros.
        epsilon: added to the variance.
        dtype: of the result: that of `x`, or a narrower one; float32 computes from a float32 copy.

    Returns:
        dtype[..., D].
    """
    # Autocast would make a copy in float32, and keep it. The kernel itself computes in float32, whatever it is given.
    with paddle.amp.auto_cast(False):
        x = x.astype(dtype) if dtype == paddle.float32 else x
        # Scales beside `x` have its dtype, or are float32.
        scales = [one.astype("float32") if one is not None and one.dtype != x.dtype else one for one in (weight, bias)]
        return F.layer_norm(x, x.shape[-1:], *scales, epsilon).astype(dtype)


class RMSNorm(PyLayer):
    """Keeps `x`, the weight and one over each row's root mean square."""

    @staticmethod
    def forward(
        ctx: Any, x: paddle.Tensor, weight: paddle.Tensor, epsilon: float, dtype: paddle.dtype
    ) -> paddle.Tensor:
        """Normalise."""
        wide = x.astype("float32")
        inverse = paddle.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
        ctx.save_for_backward(x, weight, inverse)
        ctx.asked = not x.stop_gradient, not weight.stop_gradient
        return (wide * inverse * weight.astype("float32")).astype(dtype)

    @staticmethod
    def backward(ctx: Any, upstream: paddle.Tensor) -> tuple[paddle.Tensor | None, paddle.Tensor | None]:
        """Differentiate by `x` and by the weight."""
        x, weight, inverse = ctx.saved_tensor()
        x_asked, weight_asked = ctx.asked
        x_grad = weight_grad = None
        normal, upstream = x.astype("float32") * inverse, upstream.astype("float32")
        if weight_asked:
            weight_grad = (upstream * normal).reshape([-1, normal.shape[-1]]).sum(0).astype(weight.dtype)
        if x_asked:
            upstream = upstream * weight.astype("float32")
            along = (upstream * normal).mean(-1, keepdim=True)
            x_grad = ((upstream - normal * along) * inverse).astype(x.dtype)
        return x_grad, weight_grad
