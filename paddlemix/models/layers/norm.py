"""Normalisation layers."""

from __future__ import annotations

import paddle
from paddle import nn

from paddlemix.ops import rms_norm


class RMSNorm(nn.Layer):
    """RMS normalisation with a learned scale, started at one."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = self.create_parameter([size], default_initializer=nn.initializer.Constant(1.0))
        self.epsilon = epsilon

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Normalise float[..., size]."""
        return rms_norm(x, self.weight, self.epsilon)
