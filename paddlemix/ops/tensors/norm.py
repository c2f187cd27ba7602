"""Normalisation of rows."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F

from paddlemix.ops.tensors import built
from paddlemix.ops.tensors.checks import check_like, check_rank, check_shape


def rms_norm(x: paddle.Tensor, weight: paddle.Tensor, epsilon: float) -> paddle.Tensor:
    """Scale each row of `x` to unit root mean square, then by `weight`.

    Args:
        x: float[..., D].
        weight: float[D].
        epsilon: added to the mean square.

    Returns:
        float[..., D] in the dtype of `x`; the statistics are taken in float32.

    Raises:
        ValueError: shapes, dtypes or places do not fit.

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, arXiv:1910.07467.
    """
    _check_scale("weight", weight, x)
    if built.takes(x, weight, on_cuda=True):
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
    if built.takes(x, weight, on_cuda=True):
        y, inverse = built.run("rms_norm", x, weight, epsilon)
        return y, inverse
    inverse = _inverse_root_mean_square(x.astype("float32"), epsilon).flatten()
    return rms_norm_reference(x, weight, epsilon), inverse


def add_rms_norm(
    x: paddle.Tensor, residual: paddle.Tensor, weight: paddle.Tensor, epsilon: float
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Compute `x + residual`, and `rms_norm` of that, in one pass over memory.

    Args:
        x: float[..., D].
        residual: float[..., D].
        weight: float[D].
        epsilon: added to the mean square.

    Returns:
        The sum and the normalised sum, float[..., D] each.

    Raises:
        ValueError: shapes, dtypes or places do not fit.
    """
    _check_scale("weight", weight, x)
    check_like("residual", residual, x)
    check_shape("residual", residual, x.shape)
    if built.takes(x, residual, weight, on_cuda=True):
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
    x: paddle.Tensor, weight: paddle.Tensor | None, bias: paddle.Tensor | None, epsilon: float
) -> paddle.Tensor:
    """Shift and scale each row of `x` to mean 0 and variance 1, then scale by `weight` and shift by `bias`.

    Args:
        x: float[..., D].
        weight: float[D], or None for ones.
        bias: float[D], or None for zeros.
        epsilon: added to the variance.

    Returns:
        float[..., D].

    Raises:
        ValueError: shapes, dtypes or places do not fit.

    Source: Ba et al., "Layer Normalization", 2016, arXiv:1607.06450.
    """
    _check_layer_norm(x, weight, bias)
    if built.takes(x, weight, bias, on_cuda=True):
        return _built_layer_norm(x, weight, bias, epsilon)[0]
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
    if built.takes(x, weight, bias, on_cuda=True):
        y, mean, inverse = _built_layer_norm(x, weight, bias, epsilon)
        return y, mean, inverse
    wide = x.astype("float32")
    mean = wide.mean(-1)
    variance = (wide - mean.unsqueeze(-1)).square().mean(-1)
    return layer_norm_reference(x, weight, bias, epsilon), mean.flatten(), paddle.rsqrt(variance + epsilon).flatten()


def _built_layer_norm(
    x: paddle.Tensor, weight: paddle.Tensor | None, bias: paddle.Tensor | None, epsilon: float
) -> list[paddle.Tensor]:
    given = (built.nothing() if scale is None else scale for scale in (weight, bias))
    return built.run("layer_norm", x, *given, epsilon)


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
