"""Normalisation of rows."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F

from paddlemix.ops.tensors import built
from paddlemix.ops.tensors.checks import check_like, check_rank, check_shape
from paddlemix.ops.tensors.lean import norm as lean
from paddlemix.ops.tensors.linear import product_dtype


def rms_norm(x: paddle.Tensor, weight: paddle.Tensor, epsilon: float, *, for_products: bool = False) -> paddle.Tensor:
    """Scale each row of `x` to unit root mean square, then by `weight`.

    Args:
        x: float[..., D].
        weight: float[D].
        epsilon: added to the mean square.
        for_products: whether linear layers alone take the result: under autocast it then comes as they would round it.

    Returns:
        float[..., D] in the dtype of `x`, or under autocast float32 where `x` or `weight` is; the norm is taken in
        float32.

    Raises:
        ValueError: shapes, dtypes or places do not fit.

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, arXiv:1910.07467.
    """
    _check_scale("weight", weight, x)
    if built.on_gpu(x):
        dtype = _result_dtype(for_products, x, weight)
        if built.takes(x, weight, on_cuda=True, is_mixed=True):
            return _built("rms_norm", [x, weight], epsilon, dtype)[0]
        return lean.rms_norm(x, weight, epsilon, dtype)
    if built.takes(x, weight):
        return built.run("rms_norm", x, weight, epsilon)[0]
    return rms_norm_reference(x, weight, epsilon)


def rms_norm_reference(x: paddle.Tensor, weight: paddle.Tensor, epsilon: float) -> paddle.Tensor:
    """Compute `rms_norm` in its readable form."""
    wide = x.astype("float32")
    return (wide * _inverse_root_mean_square(wide, epsilon)).astype(x.dtype) * weight


def rms_norm_with_statistics(
    x: paddle.Tensor, weight: paddle.Tensor, epsilon: float
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Compute `rms_norm`, and float32[rows]: one over each row's root mean square."""
    _check_scale("weight", weight, x)
    if built.takes(x, weight, on_cuda=True, is_mixed=True):
        y, inverse = _built("rms_norm", [x, weight], epsilon, _result_dtype(False, x, weight))
        return y, inverse
    inverse = _inverse_root_mean_square(x.astype("float32"), epsilon).flatten()
    return rms_norm_reference(x, weight, epsilon), inverse


def add_rms_norm(
    x: paddle.Tensor, residual: paddle.Tensor, weight: paddle.Tensor, epsilon: float, *, for_products: bool = False
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Compute `x + residual`, and `rms_norm` of that, in one pass over memory.

    Args:
        x: float[..., D].
        residual: float[..., D].
        weight: float[D].
        epsilon: added to the mean square.
        for_products: see `rms_norm`.

    Returns:
        The sum, which under autocast is float32 where `x` or `residual` is, and the normalised sum, float[..., D] each.

    Raises:
        ValueError: shapes, dtypes or places do not fit.
    """
    _check_scale("weight", weight, x)
    check_like("residual", residual, x)
    check_shape("residual", residual, x.shape)
    if built.on_gpu(x):
        dtype = _result_dtype(for_products, x, residual, weight)
        if built.takes(x, residual, weight, on_cuda=True, is_mixed=True):
            total, y, _ = _built("add_rms_norm", [x, residual, weight], epsilon, dtype)
            return total, y
        total = x + residual
        return total, lean.rms_norm(total, weight, epsilon, dtype)
    if built.takes(x, residual, weight):
        total, y, _ = built.run("add_rms_norm", x, residual, weight, epsilon)
        return total, y
    return add_rms_norm_reference(x, residual, weight, epsilon)


def add_rms_norm_reference(
    x: paddle.Tensor, residual: paddle.Tensor, weight: paddle.Tensor, epsilon: float
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Compute `add_rms_norm` in its readable form."""
    total = x + residual
    return total, rms_norm_reference(total, weight, epsilon)


def layer_norm(
    x: paddle.Tensor,
    weight: paddle.Tensor | None,
    bias: paddle.Tensor | None,
    epsilon: float,
    *,
    for_products: bool = False,
) -> paddle.Tensor:
    """Shift and scale each row of `x` to mean 0 and variance 1, then scale by `weight` and shift by `bias`.

    Args:
        x: float[..., D].
        weight: float[D], or None for ones.
        bias: float[D], or None for zeros.
        epsilon: added to the variance.
        for_products: see `rms_norm`.

    Returns:
        float[..., D], of a dtype as that of `rms_norm`.

    Raises:
        ValueError: shapes, dtypes or places do not fit.

    Source: Ba et al., "Layer Normalization", 2016, arXiv:1607.06450.
    """
    _check_layer_norm(x, weight, bias)
    if built.on_gpu(x):
        dtype = _result_dtype(for_products, x, weight, bias)
        if built.takes(x, weight, bias, on_cuda=True, is_mixed=True):
            return _built("layer_norm", [x, *_given(weight, bias)], epsilon, dtype)[0]
        return lean.layer_norm(x, weight, bias, epsilon, dtype)
    if built.takes(x, weight, bias):
        return built.run("layer_norm", x, *_given(weight, bias), epsilon)[0]
    return layer_norm_reference(x, weight, bias, epsilon)


def layer_norm_reference(
    x: paddle.Tensor, weight: paddle.Tensor | None, bias: paddle.Tensor | None, epsilon: float
) -> paddle.Tensor:
    """Compute `layer_norm` in its readable form."""
    return F.layer_norm(x, x.shape[-1:], weight, bias, epsilon)


def layer_norm_with_statistics(
    x: paddle.Tensor, weight: paddle.Tensor | None, bias: paddle.Tensor | None, epsilon: float
) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
    """Compute `layer_norm`, and float32[rows] each: the mean, and one over the standard deviation."""
    _check_layer_norm(x, weight, bias)
    if built.takes(x, weight, bias, on_cuda=True, is_mixed=True):
        dtype = _result_dtype(False, x, weight, bias)
        y, mean, inverse = _built("layer_norm", [x, *_given(weight, bias)], epsilon, dtype)
        return y, mean, inverse
    wide = x.astype("float32")
    mean = wide.mean(-1)
    variance = (wide - mean.unsqueeze(-1)).square().mean(-1)
    return layer_norm_reference(x, weight, bias, epsilon), mean.flatten(), paddle.rsqrt(variance + epsilon).flatten()


def _given(*scales: paddle.Tensor | None) -> list[paddle.Tensor]:
    return [built.nothing() if scale is None else scale for scale in scales]


def _built(name: str, inputs: list[paddle.Tensor], epsilon: float, dtype: paddle.dtype) -> list[paddle.Tensor]:
    """Run the op for tensors of one dtype, or its kin for mixed ones, which is told what to make of them."""
    if all(one.dtype == dtype for one in inputs):
        return built.run(name, *inputs, epsilon)
    count = 2 if name == "add_rms_norm" else 1
    rows, scales = inputs[:count], inputs[count:]
    if dtype == paddle.float32 and any(one.dtype == dtype for one in rows):
        # No kernel reads narrower scales beside rows that come and stay wide.
        scales = [one.astype(dtype) for one in scales]
    # The gradient of a sum sees neither addend, and is told their dtypes.
    addends = [built.code_of(one.dtype) for one in rows] if count == 2 else []
    return built.run(f"mixed_{name}", *rows, *scales, epsilon, built.code_of(dtype), *addends)


def _result_dtype(for_products: bool, x: paddle.Tensor, *others: paddle.Tensor | None) -> paddle.dtype:
    """Choose the dtype of a norm."""
    asked = product_dtype() if for_products else None
    given = [x, *(other for other in others if other is not None)]
    if asked is not None and all(one.dtype in (asked, paddle.float32) for one in given):
        return asked
    return x.dtype if all(one.dtype == x.dtype for one in given) else paddle.float32


def _inverse_root_mean_square(wide: paddle.Tensor, epsilon: float) -> paddle.Tensor:
    return paddle.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)


def _check_layer_norm(x: paddle.Tensor, weight: paddle.Tensor | None, bias: paddle.Tensor | None) -> None:
    for name, scale in (("weight", weight), ("bias", bias)):
        if scale is not None:
            _check_scale(name, scale, x)


def _check_scale(name: str, scale: paddle.Tensor, x: paddle.Tensor) -> None:
    check_rank("x", x, 1)
    check_like(name, scale, x)
    check_shape(name, scale, x.shape[-1:])
