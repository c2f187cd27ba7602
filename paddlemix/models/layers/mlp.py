"""Feed-forward blocks."""

from __future__ import annotations

import paddle
from paddle import nn

from paddlemix import ops
from paddlemix.models.layers.linear import Linear, activated_linear


class GatedMLP(nn.Layer):
    """`down(silu(gate(x)) * up(x))`, no biases."""

    def __init__(self, size: int, inner_size: int) -> None:
        super().__init__()
        self.gate_proj = Linear(size, inner_size, bias_attr=False)
        self.up_proj = Linear(size, inner_size, bias_attr=False)
        self.down_proj = Linear(inner_size, size, bias_attr=False)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Transform float[..., size]."""
        return self.down_proj(ops.swiglu(self.gate_proj(x), self.up_proj(x)))


class MLP(nn.Layer):
    """`fc2(activation(fc1(x)))` with biases."""

    def __init__(self, size: int, inner_size: int, activation: ops.Activation) -> None:
        super().__init__()
        self.fc1 = Linear(size, inner_size)
        self.fc2 = Linear(inner_size, size)
        self.activation = activation

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Transform float[..., size]."""
        return self.fc2(activated_linear(self.fc1, x, self.activation))


class GELU(nn.Layer):
    """The activation as a layer, for blocks that are a list of layers."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Transform float[...]."""
        return ops.gelu(x)
