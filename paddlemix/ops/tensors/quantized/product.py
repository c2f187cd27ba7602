"""Products with weights that are held as codes."""

from __future__ import annotations

from typing import Any

import paddle
from paddle.autograd import PyLayer

from paddlemix.ops.tensors import built
from paddlemix.ops.tensors.cards.quantized_product import quantized_product
from paddlemix.ops.tensors.checks import check_shape
from paddlemix.ops.tensors.linear import is_rounded, product_dtype
from paddlemix.ops.tensors.quantized.weight import QuantizedWeight


def quantized_linear(x: paddle.Tensor, weight: QuantizedWeight, bias: paddle.Tensor | None = None) -> paddle.Tensor:
    """Compute `x weight^T + bias`, with no more than a part of the weight in floating point at a time.

    The weight has no gradient. Under automatic mixed precision the product is computed in its dtype.

    Args:
        x: float[..., in].
        weight: of [out, in].
        bias: float[out], or None.

    Returns:
        float[..., out].

    Raises:
        ValueError: shapes do not fit.
    """
    outputs, inputs = weight.shape
    if not x.ndim or x.shape[-1] != inputs:
        raise ValueError(f"the weight of shape {[outputs, inputs]} does not multiply `x` of shape {list(x.shape)}.")
    if bias is not None:
        check_shape("bias", bias, [outputs])
    dtype = product_dtype() or x.dtype
    if built.on_gpu(x):
        x = x.astype(dtype)
        return (quantized_product if built.takes(x, on_cuda=True) else quantized_linear_reference)(x, weight, bias)
    if dtype == x.dtype and built.takes(x, bias):
        asked = paddle.is_grad_enabled() and not x.stop_gradient
        bias = built.nothing() if bias is None else bias
        return built.run("quantized_linear", x, bias, *weight.tensors, outputs, weight.block, is_rounded(), asked)[0]
    return quantized_linear_reference(x.astype(dtype), weight, bias)


def quantized_linear_reference(
    x: paddle.Tensor, weight: QuantizedWeight, bias: paddle.Tensor | None = None
) -> paddle.Tensor:
    """Compute `quantized_linear` in its readable form."""
    outputs, inputs = weight.shape
    rows = x.reshape([-1, inputs])
    if weight.order is not None:
        rows = paddle.index_select(rows, weight.order, axis=1)
    with paddle.amp.auto_cast(enable=False):
        y = _Product.apply(rows, weight).reshape([*x.shape[:-1], outputs])
        return y if bias is None else y + bias.astype(y.dtype)


class _Product(PyLayer):
    """`x weight^T`; the weight is put into floating point again for the gradient, and not kept."""

    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, weight: QuantizedWeight) -> paddle.Tensor:
        """Multiply float[rows, in]."""
        ctx.weight = weight
        parts = [paddle.matmul(x, tile.astype(x.dtype), transpose_y=True) for _, tile in weight.tiles()]
        return parts[0] if len(parts) == 1 else paddle.concat(parts, axis=1)

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        """Return the gradient of float[rows, in]."""
        total = None
        for outputs, tile in ctx.weight.tiles():
            part = paddle.matmul(gradient[:, outputs], tile.astype(gradient.dtype))
            total = part if total is None else total + part
        return total
