"""The norm of a step's gradients, as an optimizer gets them and before it clips them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paddle

from paddlemix.distributed.paddle_seams import Gradients, replace_clipping, squared_norm
from paddlemix.distributed.sharding import is_shared_out


class GradientNorm:
    """Takes the norm of whatever passes through on its way to the optimizer.

    Paddle's clipping knows the norm too, but keeps it to itself, in another place for each way of sharing a model out;
    all of them hand their gradients to the innermost optimizer, reduced and scaled. A second look at all gradients is
    not free, so only the steps that are asked for are measured.

    Args:
        optimizer: Paddle's, as training calls it, with all that fleet puts round it.
        tensor_parallel_degree: ranks that share layers.
        sharding_degree: ranks that share the optimizer's states.
        is_wanted: asked at each step whether to measure it; all ranks must say the same.
    """

    def __init__(
        self,
        optimizer: Any,
        *,
        tensor_parallel_degree: int,
        sharding_degree: int,
        is_wanted: Callable[[], bool],
    ) -> None:
        self._optimizer = optimizer
        self._degrees = tensor_parallel_degree, sharding_degree
        self._is_wanted = is_wanted
        self._square: paddle.Tensor | None = None
        self._clip = replace_clipping(optimizer, self)

    def take(self) -> float | None:
        """Return the norm over all ranks of the step measured since the last call; None where there was none.

        It is inf or NaN where gradients are, as in fp16 those of a step that is left out.
        """
        square, self._square = self._square, None
        return None if square is None else square.item() ** 0.5

    def __call__(self, gradients: Gradients) -> Gradients:
        """Measure gradients if that is wanted, and clip them as the optimizer would have.

        Args:
            gradients: parameters with the gradients that this rank's optimizer is about to use.

        Returns:
            The same, clipped.
        """
        if self._is_wanted():
            self._square = self._measured(gradients)
        return gradients if self._clip is None else self._clip(gradients)

    def _measured(self, gradients: Gradients) -> paddle.Tensor:
        ranks = paddle.distributed.get_world_size()
        with paddle.no_grad():
            square = paddle.zeros([], dtype="float32")
            for parameter, gradient in gradients:
                # Every rank that has the same numbers brings them.
                square += squared_norm(gradient) * (self._parts(parameter) / ranks)
            if ranks > 1:
                paddle.distributed.all_reduce(square)
        return square

    def _parts(self, parameter: paddle.Tensor) -> int:
        """Count the ranks that it takes to put a parameter together."""
        tensor_parallel, sharding = self._degrees
        parts = tensor_parallel if getattr(parameter, "is_distributed", False) else 1
        return parts * (sharding if is_shared_out(self._optimizer, parameter) else 1)
