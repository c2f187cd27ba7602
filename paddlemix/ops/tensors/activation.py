"""Activations of the Qwen-VL family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import paddle
import paddle.nn.functional as F

from paddlemix.ops.tensors import built
from paddlemix.ops.tensors.checks import check_like, check_shape
from paddlemix.ops.tensors.lean import activation as lean

Activation = Literal["gelu", "quick_gelu"]

_GELU, _QUICK_GELU = 1, 2


def swiglu(gate: paddle.Tensor, up: paddle.Tensor) -> paddle.Tensor:
    """Compute `silu(gate) * up`, both float[..., D].

    Source: Shazeer, "GLU Variants Improve Transformer", 2020, arXiv:2002.05202.
    """
    check_like("up", up, gate)
    check_shape("up", up, gate.shape)
    if built.takes(gate, up, on_cuda=True):
        return built.run("swiglu", gate, up)[0]
    if gate.dtype != up.dtype:
        return swiglu(gate.astype("float32"), up.astype("float32"))  # as autocast does with an op that it does not know
    return swiglu_reference(gate, up)


def swiglu_reference(gate: paddle.Tensor, up: paddle.Tensor) -> paddle.Tensor:
    """Compute `swiglu` in its readable form."""
    return F.swiglu(gate, up)


def quick_gelu(x: paddle.Tensor) -> paddle.Tensor:
    """Compute `x * sigmoid(1.702 x)`, float[..., D].

    Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, arXiv:1606.08415; the sigmoid form, as in CLIP.
    """
    if built.takes(x, on_cuda=True):
        return built.run("activation", x, _QUICK_GELU)[0]
    if built.on_gpu(x):
        return lean.quick_gelu(x)
    return quick_gelu_reference(x)


def quick_gelu_reference(x: paddle.Tensor) -> paddle.Tensor:
    """Compute `quick_gelu` in its readable form."""
    return x * F.sigmoid(1.702 * x)


def gelu(x: paddle.Tensor) -> paddle.Tensor:
    """Multiply `x` by the probability that a standard normal number is below it, float[..., D].

    Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, arXiv:1606.08415.
    """
    if built.takes(x, on_cuda=True):
        return built.run("activation", x, _GELU)[0]
    return gelu_reference(x)


def gelu_reference(x: paddle.Tensor) -> paddle.Tensor:
    """Compute `gelu` in its readable form."""
    return F.gelu(x)


ACTIVATIONS: dict[Activation, Callable[[paddle.Tensor], paddle.Tensor]] = {"gelu": gelu, "quick_gelu": quick_gelu}
REFERENCES: dict[Activation, Callable[[paddle.Tensor], paddle.Tensor]] = {
    "gelu": gelu_reference,
    "quick_gelu": quick_gelu_reference,
}
# What the built ops call them.
KINDS: dict[Activation | None, int] = {None: 0, "gelu": _GELU, "quick_gelu": _QUICK_GELU}
