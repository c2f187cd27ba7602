"""Normalisation layers."""

from __future__ import annotations

import paddle
from paddle import nn

from paddlemix import ops


class RMSNorm(nn.Layer):
    """RMS normalisation with a learned scale, started at one.

    Args:
        size: of the rows.
        epsilon: added to the mean square.
        for_products: whether linear layers alone take the result, see `ops.rms_norm`.
    """

    def __init__(self, size: int, epsilon: float, *, for_products: bool = False) -> None:
        super().__init__()
        self.weight = self.create_parameter([size], default_initializer=nn.initializer.Constant(1.0))
        self.epsilon, self._for_products = epsilon, for_products

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Normalise float[..., size]."""
        return ops.rms_norm(x, self.weight, self.epsilon, for_products=self._for_products)

    def after_adding(self, x: paddle.Tensor, residual: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Add two float[..., size]; return the sum, and the sum normalised."""
        return ops.add_rms_norm(x, residual, self.weight, self.epsilon, for_products=self._for_products)


class LayerNorm(nn.LayerNorm):
    """Paddle's layer normalisation of the last axis, computed by `ops.layer_norm`.

    Args:
        size: of the rows.
        epsilon: added to the variance.
        for_products: whether linear layers alone take the result, see `ops.rms_norm`.
    """

    def __init__(self, size: int, epsilon: float, *, for_products: bool = False) -> None:
        super().__init__(size, epsilon=epsilon)
        self._for_products = for_products

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Normalise float[..., size]."""
        return ops.layer_norm(x, self.weight, self.bias, self._epsilon, for_products=self._for_products)
