"""The norm of a step's gradients, as an optimizer gets them and before it clips them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import paddle

from paddlemix.distributed.paddle_seams import (
    Gradients,
    clipping_kind,
    clips_by_global_norm,
    replace_clipping,
    squared_norm,
)
from paddlemix.distributed.sharding import is_shared_out
from paddlemix.ops import squared_norms

# Beside a norm: its square is 0 in float32, and what it is multiplied with can be read off it exactly.
_MARK = 2.0**-76


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
        self._kinds: dict[str, tuple[Any, ...]] = {}
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

    def scales(self, gradients: Gradients) -> list[float] | None:
        """Do what a call does, but leave the gradients as they are, and say what clipping would multiply them with.

        Clipping needs of a gradient nothing but its norm. So it is called on two numbers in place of all gradients of a
        kind: their norm, and one by which its factor is read. Whatever it asks other ranks for, it does then.

        Args:
            gradients: parameters with the gradients that this rank's optimizer is about to use.

        Returns:
            A factor each; None, and nothing done, where the clipping is of a kind that norms do not decide.
        """
        if self._clip is None and not self._is_wanted():
            return [1.0] * len(gradients)
        if self._clip is not None and not clips_by_global_norm(self._clip):
            return None
        kinds: dict[tuple[Any, ...], list[int]] = {}
        for place, (parameter, _) in enumerate(gradients):
            name = parameter.name
            if name not in self._kinds:
                self._kinds[name] = (*clipping_kind(parameter), self._parts(parameter))
            kinds.setdefault(self._kinds[name], []).append(place)
        squares = squared_norms([gradient for _, gradient in gradients]).numpy()
        factors = [1.0] * len(gradients)
        stand_ins = [self._stand_in(gradients[places[0]][0], squares[places]) for places in kinds.values()]
        for places, (_, clipped) in zip(kinds.values(), self(stand_ins), strict=True):
            factor = float(clipped.numpy()[1]) / _MARK
            for place in places:
                factors[place] = factor
        return factors

    @staticmethod
    def _stand_in(parameter: paddle.Tensor, squares: np.ndarray) -> tuple[paddle.Tensor, paddle.Tensor]:
        return parameter, paddle.to_tensor(np.asarray([squares.sum() ** 0.5, _MARK], np.float32))

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
