"""Linear layers."""

from __future__ import annotations

from typing import Literal

import paddle
import paddle.nn.functional as F
from paddle.base import core
from paddle.base.framework import _dygraph_tracer

from paddlemix.ops.tensors import built
from paddlemix.ops.tensors.activation import ACTIVATIONS, KINDS, REFERENCES, Activation
from paddlemix.ops.tensors.checks import check_like, check_shape

ComputeDtype = Literal["float32", "bfloat16"]

# Autocast's names of the ops that `linear_reference` calls.
_PRODUCTS = {"matmul_v2", "linear_v2"}

_rounded = False


def set_compute_dtype(dtype: ComputeDtype) -> bool:
    """Choose what float32 products on the CPU are computed from, for the whole process.

    With "bfloat16", linear layers of 32 rows or more and `linear_cross_entropy` round both factors to bfloat16; sums,
    results and weights stay float32. That needs the built ops, and no instructions for it: where a processor has none,
    or slow ones, the rounded factors are multiplied in float32, and the results differ by the order of sums alone.
    `rounding_pays` tells whether it is faster.

    Args:
        dtype: of the factors.

    Returns:
        Whether products are computed so from now on.

    Raises:
        ValueError: `dtype` is neither.
    """
    global _rounded
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f"`dtype` is {dtype!r}; expected float32 or bfloat16.")
    _rounded = dtype == "bfloat16" and built.library().handle is not None
    return _rounded == (dtype == "bfloat16")


def rounding_pays() -> bool:
    """Tell whether products from bfloat16 are so much faster here that `auto` takes them."""
    speed = built.speed()
    return speed is not None and speed.choice.rounding_pays


def is_rounded() -> bool:
    """Tell whether factors are rounded to bfloat16."""
    return _rounded


def product_dtype() -> paddle.dtype | None:
    """Tell in which dtype autocast computes products here, whatever their factors have.

    Returns:
        bfloat16 or float16; None without autocast, or where the user's list leaves products in float32.
    """
    if not paddle.is_autocast_enabled():
        return None
    white, _ = (_dygraph_tracer() or core)._get_amp_op_list()
    return getattr(paddle, paddle.get_autocast_gpu_dtype()) if white >= _PRODUCTS else None


def linear(
    x: paddle.Tensor,
    weight: paddle.Tensor,
    bias: paddle.Tensor | None = None,
    activation: Activation | None = None,
    *,
    transposed: bool = False,
) -> paddle.Tensor:
    """Compute `activation(x weight + bias)`.

    Args:
        x: float[..., K].
        weight: float[K, N], or [N, K] where `transposed`.
        bias: float[N], or None.
        activation: applied to the result, or None.
        transposed: whether the weight is held the other way round, as an embedding is.

    Returns:
        float[..., N].

    Raises:
        ValueError: shapes, dtypes or places do not fit, or there is no such activation.
    """
    _check(x, weight, bias, activation, transposed)
    if not built.takes(x):
        y = linear_reference(x, weight, bias, transposed=transposed)
        return y if activation is None else ACTIVATIONS[activation](y)
    asked = paddle.is_grad_enabled()
    return built.run(
        "linear",
        x,
        weight,
        built.nothing() if bias is None else bias,
        transposed,
        KINDS[activation],
        _rounded,
        asked,
        asked and not x.stop_gradient,
        asked and not weight.stop_gradient,
    )[0]


def linear_reference(
    x: paddle.Tensor,
    weight: paddle.Tensor,
    bias: paddle.Tensor | None = None,
    activation: Activation | None = None,
    *,
    transposed: bool = False,
) -> paddle.Tensor:
    """Compute `linear` in its readable form."""
    if transposed:
        y = paddle.matmul(x, weight, transpose_y=True)
        y = y if bias is None else y + bias
    else:
        y = F.linear(x, weight, bias)
    return y if activation is None else REFERENCES[activation](y)


def _check(
    x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor | None, activation: str | None, transposed: bool
) -> None:
    if activation not in KINDS:
        raise ValueError(f"`activation` is {activation!r}; expected None, gelu or quick_gelu.")
    check_like("weight", weight, x)
    if weight.ndim != 2 or not x.ndim or x.shape[-1] != weight.shape[int(transposed)]:
        raise ValueError(f"`weight` has shape {weight.shape}, which does not multiply `x` of shape {x.shape}.")
    if bias is not None:
        check_like("bias", bias, x)
        check_shape("bias", bias, [weight.shape[int(not transposed)]])
