"""RMS normalisation."""

from __future__ import annotations

import paddle


def rms_norm(x: paddle.Tensor, weight: paddle.Tensor, epsilon: float) -> paddle.Tensor:
    """Scale each row of `x` to unit root mean square, then by `weight`.

    Args:
        x: float[..., D].
        weight: float[D].
        epsilon: added to the mean square.

    Returns:
        float[..., D] in the dtype of `x`; the statistics are taken in float32.

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.
    """
    wide = x.astype("float32")
    scale = paddle.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return (wide * scale).astype(x.dtype) * weight
