"""Activations of the Qwen-VL family."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F


def swiglu(gate: paddle.Tensor, up: paddle.Tensor) -> paddle.Tensor:
    """`silu(gate) * up`, both float[..., D].

    Source: Shazeer, "GLU Variants Improve Transformer", 2020.
    """
    return F.swiglu(gate, up)


def quick_gelu(x: paddle.Tensor) -> paddle.Tensor:
    """`x * sigmoid(1.702 x)`, float[..., D].

    Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, the sigmoid form that CLIP uses.
    """
    return x * F.sigmoid(1.702 * x)
