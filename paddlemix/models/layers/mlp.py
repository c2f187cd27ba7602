"""Feed-forward blocks."""

from __future__ import annotations

from collections.abc import Callable

import paddle
from paddle import nn

from paddlemix.ops import swiglu


class GatedMLP(nn.Layer):
    """`down(silu(gate(x)) * up(x))`, no biases."""

    def __init__(self, size: int, inner_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size, inner_size, bias_attr=False)
        self.up_proj = nn.Linear(size, inner_size, bias_attr=False)
        self.down_proj = nn.Linear(inner_size, size, bias_attr=False)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Transform float[..., size]."""
        return self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))


class MLP(nn.Layer):
    """`fc2(activation(fc1(x)))` with biases."""

    def __init__(self, size: int, inner_size: int, activation: Callable[[paddle.Tensor], paddle.Tensor]) -> None:
        super().__init__()
        self.fc1 = nn.Linear(size, inner_size)
        self.fc2 = nn.Linear(inner_size, size)
        self.activation = activation

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Transform float[..., size]."""
        return self.fc2(self.activation(self.fc1(x)))
