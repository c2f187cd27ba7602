"""Feed-forward blocks."""

from __future__ import annotations

from typing import Literal

import paddle
from paddle import nn

from paddlemix import ops
from paddlemix.models.layers.linear import Linear, activated_linear

MLPRole = Literal["gate", "up", "down"]
# The published names of the layers of a gated MLP, in the order of their parameters, and what each of them does: `gate`
# is the inner layer that is activated, `up` the other one, `down` leads back to the outer size.
MLPNames = tuple[tuple[str, MLPRole], ...]
QWEN2_MLP: MLPNames = (("gate_proj", "gate"), ("up_proj", "up"), ("down_proj", "down"))


class GatedMLP(nn.Layer):
    """`down(silu(gate(x)) * up(x))`.

    Args:
        size: outer width.
        inner_size: inner width.
        names: of the three layers.
        bias: whether they have biases.

    Source: Shazeer, "GLU Variants Improve Transformer", 2020, arXiv:2002.05202.
    """

    def __init__(self, size: int, inner_size: int, names: MLPNames = QWEN2_MLP, *, bias: bool = False) -> None:
        super().__init__()
        self._names = {role: name for name, role in names}
        for name, role in names:
            sizes = (inner_size, size) if role == "down" else (size, inner_size)
            setattr(self, name, Linear(*sizes, bias_attr=None if bias else False))

    @property
    def layers(self) -> tuple[nn.Layer, nn.Layer, nn.Layer]:
        """Gate, up and down, whatever stands in their places now."""
        names = self._names
        return getattr(self, names["gate"]), getattr(self, names["up"]), getattr(self, names["down"])

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Transform float[..., size]."""
        gate, up, down = self.layers
        return down(ops.swiglu(gate(x), up(x)))


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
