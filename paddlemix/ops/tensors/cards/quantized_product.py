"""Products with weights of codes by the op that is built for GPUs."""

from __future__ import annotations

from contextlib import nullcontext

import paddle

from paddlemix.ops.tensors import built
from paddlemix.ops.tensors.quantized.weight import QuantizedWeight


def quantized_product(x: paddle.Tensor, weight: QuantizedWeight, bias: paddle.Tensor | None) -> paddle.Tensor:
    """Compute `x weight^T + bias` in the dtype of `x`.

    Up to 16 rows are multiplied straight from the codes; of more, and for the gradient, about 128 MiB of the weight are
    in floating point at a time.

    Args:
        x: float[..., in], which `built.takes`.
        weight: of [out, in].
        bias: float[out], or None.

    Returns:
        float[..., out].
    """
    if weight.order is not None:
        x = paddle.index_select(x, weight.order, axis=-1)
    nothing = built.nothing()
    given = (weight.codes, weight.values, weight.scales, nothing if weight.zeros is None else weight.zeros)
    # Autocast would round scales and zeros. Switching off what is not on takes longer than a kernel of one row.
    with paddle.amp.auto_cast(enable=False) if paddle.is_autocast_enabled() else nullcontext():
        bias = None if bias is None else bias.astype(x.dtype)
        # A bias that is trained is added by Paddle, which has its gradient.
        is_trained = bias is not None and not bias.stop_gradient and paddle.is_grad_enabled()
        in_op = nothing if bias is None or is_trained else bias
        y = built.run("quantized_linear", x, *given, in_op, *weight.shape, weight.block)[0]
        return y + bias if is_trained else y
