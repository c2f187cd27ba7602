"""Linear layers on the ops of `paddlemix.ops`."""

from __future__ import annotations

import paddle
from paddle import nn

from paddlemix import ops


class Linear(nn.Linear):
    """Paddle's linear layer, names and initial values included, computed by `ops.linear`."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Transform float[..., in] to float[..., out]."""
        return ops.linear(x, self.weight, self.bias)


def activated_linear(layer: nn.Layer, x: paddle.Tensor, activation: ops.Activation) -> paddle.Tensor:
    """`activation(layer(x))`, in one op unless something else, such as an adapter, has taken the layer's place.

    Args:
        layer: linear.
        x: float[..., in].
        activation: its name.

    Returns:
        float[..., out].
    """
    if type(layer) is Linear:
        return ops.linear(x, layer.weight, layer.bias, activation)
    return ops.ACTIVATIONS[activation](layer(x))
