"""Linear layers on the ops of `paddlemix.ops`."""

from __future__ import annotations

import paddle
from paddle import nn

from paddlemix import ops


class Linear(nn.Linear):
    """Paddle's linear layer, names and initial values included, computed by `ops.linear`."""

    @property
    def sizes(self) -> tuple[int, int]:
        """Widths of what comes in and of what goes out."""
        inputs, outputs = self.weight.shape
        return inputs, outputs

    def forward(self, x: paddle.Tensor, activation: ops.Activation | None = None) -> paddle.Tensor:
        """Transform float[..., in] to float[..., out], and apply an activation in the same op."""
        return ops.linear(x, self.weight, self.bias, activation)


def activated_linear(layer: nn.Layer, x: paddle.Tensor, activation: ops.Activation) -> paddle.Tensor:
    """Compute `activation(layer(x))`, in one op unless something else, such as an adapter, has taken the layer's place.

    Args:
        layer: linear.
        x: float[..., in].
        activation: its name.

    Returns:
        float[..., out].
    """
    if type(layer) is Linear:
        return layer(x, activation)
    return ops.ACTIVATIONS[activation](layer(x))
