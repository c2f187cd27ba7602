"""Computations with weights of other layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paddle
from paddle import nn


class Borrowing(nn.Layer):
    """Calls functions that use weights of other layers; it has none of its own.

    Sharding stage 3 puts a weight together when its layer is called, and takes it apart again behind the call.

    Args:
        *weights: that the functions use.

    Attributes:
        extra_parameters: the weights; Paddle's stage 3 looks for them under this name.
    """

    extra_parameters: list[paddle.Tensor]

    def __init__(self, *weights: paddle.Tensor) -> None:
        super().__init__()
        self.extra_parameters = list(weights)

    def forward(self, function: Callable[..., paddle.Tensor], *arguments: Any) -> paddle.Tensor:
        """Compute `function(*arguments)`."""
        return function(*arguments)
