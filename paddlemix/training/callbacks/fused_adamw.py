"""AdamW with its clipping in one pass over all parameters, on the threads of the built ops."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import paddle
from paddle.optimizer import AdamW

from paddlemix.distributed.paddle_seams import (
    Gradients,
    accumulators,
    adamw_numbers,
    decay_rule,
    innermost,
    replace_clipping,
    replace_updates,
)
from paddlemix.ops import AdamWTensors, adamw_step, takes_adamw
from paddlemix.training.callbacks.gradient_norm import GradientNorm

# Paddle's names of the states, in the order of `AdamWTensors`.
_STATES = ("moment1", "moment2", "beta1_pow_acc", "beta2_pow_acc")


class FusedAdamW:
    """Moves the parameters that Paddle's AdamW is about to move, where the built op takes them all.

    The optimizer stays Paddle's, and makes and keeps its states; so does what fleet puts round it. Where a parameter is
    not float32 in the CPU's memory, or the op is not built, nothing is changed: Paddle's own clips and moves.

    Args:
        norm: measures and clips the optimizer's gradients.
    """

    def __init__(self, norm: GradientNorm) -> None:
        self._norm = norm
        self._optimizer: Any = None
        self._factors: dict[str, float] | None = None
        self._known: dict[str, _Known] = {}

    def take_over(self, optimizer: Any) -> None:
        """Clip and move from now on in the place of an AdamW; an optimizer of another formula is left alone.

        Args:
            optimizer: as training calls it, with all that fleet puts round it.
        """
        self._optimizer = innermost(optimizer)
        # Its subclasses keep other moments, or round another way: AdamWCustom's second moment is 1e-5 off.
        if type(self._optimizer) is AdamW:
            replace_clipping(optimizer, self._clip)
            replace_updates(optimizer, self._move)

    def _clip(self, gradients: Gradients) -> Gradients:
        """Clip gradients, or keep what they are to be multiplied with."""
        there = [pair for pair in gradients if pair[1] is not None]
        factors = self._norm.scales(there) if self._takes(there) else None
        if factors is None:
            self._factors = None
            return self._norm(gradients)
        self._factors = {parameter.name: factor for (parameter, _), factor in zip(there, factors, strict=True)}
        return gradients

    def _takes(self, gradients: Gradients) -> bool:
        # A rank without parameters, too, asks the others for their norms.
        return (
            bool(gradients)
            and adamw_numbers(self._optimizer) is not None
            and all(
                gradient.is_dense() and gradient.dtype == paddle.float32 and self._about(parameter).is_taken
                for parameter, gradient in gradients
            )
        )

    def _move(self, gradients: Gradients) -> bool:
        factors, numbers = self._factors, adamw_numbers(self._optimizer)
        self._factors = None
        if factors is None or numbers is None:
            return False
        parameters = [parameter for parameter, _ in gradients]
        states = accumulators(self._optimizer)
        adamw_step(
            AdamWTensors(
                parameters,
                [gradient for _, gradient in gradients],
                *([states[state][parameter.name] for parameter in parameters] for state in _STATES),
            ),
            rates=self._rates(parameters),
            decays=[numbers.weight_decay if self._about(parameter).decays else 0.0 for parameter in parameters],
            scales=[factors[parameter.name] for parameter in parameters],
            beta1=numbers.beta1,
            beta2=numbers.beta2,
            epsilon=numbers.epsilon,
        )
        return True

    def _rates(self, parameters: list[paddle.Tensor]) -> list[float]:
        """Return the rates as Paddle rounds them: the optimizer's to float32, and its product with each factor."""
        rate = np.float32(self._optimizer.get_lr())
        factors = [*map(_rate_factor, parameters)]
        rates = {factor: float(rate * np.float32(factor)) for factor in set(factors)}
        return [rates[factor] for factor in factors]

    def _about(self, parameter: paddle.Tensor) -> _Known:
        known = self._known.get(parameter.name)
        if known is None:
            decays = bool(decay_rule(self._optimizer)(parameter.name))
            known = self._known[parameter.name] = _Known(_is_taken(parameter), decays)
        return known


class _Known(NamedTuple):
    """What of a parameter no step changes; to ask for it takes as long as to move a thousand numbers.

    PaddleNLP looks for its name in a list of all that decay.
    """

    is_taken: bool
    decays: bool


def _is_taken(parameter: paddle.Tensor) -> bool:
    """Tell whether the op takes a parameter, which has no regularizer of its own nor a rate that is a tensor."""
    if getattr(parameter, "regularizer", None) is not None or isinstance(_rate_factor(parameter), paddle.Tensor):
        return False
    return takes_adamw(parameter)


def _rate_factor(parameter: paddle.Tensor) -> Any:
    return (getattr(parameter, "optimize_attr", None) or {}).get("learning_rate", 1.0)
