"""Norms under the name and with the results that PaddleNLP and PaddleMIX import."""

from paddlemix.ops.tensors.norm import layer_norm_with_statistics, rms_norm_with_statistics


def fused_ln(x, scale, bias, epsilon):
    """Normalise float32[..., D] to mean 0 and variance 1, scaled and shifted.

    Returns:
        The result, and float32[rows] each: mean, and one over the standard deviation.
    """
    return layer_norm_with_statistics(x, scale, bias, epsilon)


def fused_rms_norm(x, scale, epsilon):
    """Normalise float32[..., D] to unit root mean square, scaled.

    Returns:
        The result, and float32[rows]: one over the root mean square.
    """
    return rms_norm_with_statistics(x, scale, epsilon)
