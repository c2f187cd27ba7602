"""A step of AdamW over many tensors at once.

Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2017, arXiv:1711.05101.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import paddle

from paddlemix.ops.tensors import built


@dataclass(frozen=True)
class AdamWTensors:
    """The tensors of a step, lists of one length.

    Attributes:
        parameters: float32[...], overwritten.
        gradients: as the parameters.
        moments1: as the parameters, running means of gradients; overwritten.
        moments2: as the parameters, running means of their squares; overwritten.
        powers1: float32[1] each, `beta1` to the power of the number of steps with this one; overwritten with the next.
        powers2: likewise of `beta2`.
    """

    parameters: Sequence[paddle.Tensor]
    gradients: Sequence[paddle.Tensor]
    moments1: Sequence[paddle.Tensor]
    moments2: Sequence[paddle.Tensor]
    powers1: Sequence[paddle.Tensor]
    powers2: Sequence[paddle.Tensor]

    def __post_init__(self) -> None:
        """Check that the lists fit one another."""
        counts = {name: len(tensors) for name, tensors in vars(self).items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"the lists of a step of AdamW have different lengths: {counts}")


def takes_adamw(parameter: paddle.Tensor) -> bool:
    """Tell whether the built op moves a parameter: float32 on the CPU, without gaps in memory."""
    return built.takes(parameter) and parameter.is_contiguous()


def adamw_step(
    tensors: AdamWTensors,
    *,
    rates: Sequence[float],
    decays: Sequence[float],
    scales: Sequence[float],
    beta1: float,
    beta2: float,
    epsilon: float,
) -> None:
    """Move parameters by AdamW: built for the CPU in one pass over each, the same bits for any number of threads.

    Args:
        tensors: all but the gradients are overwritten; of one dtype, and in one place.
        rates: each parameter's learning rate.
        decays: each parameter's coefficient of weight decay.
        scales: what each gradient is multiplied by first, as clipping asks for.
        beta1: of the mean of gradients.
        beta2: of the mean of their squares.
        epsilon: added to the root of the latter.

    Raises:
        ValueError: lists are of different lengths, tensors of different sizes, or some are of another dtype than the
            first; nothing has moved then.
    """
    counts = {len(tensors.parameters), len(rates), len(decays), len(scales)}
    if len(counts) > 1:
        raise ValueError(
            f"{len(tensors.parameters)} parameters, but {len(rates)} rates, {len(decays)} decays and {len(scales)} "
            "scales; expected one each."
        )
    if not tensors.parameters:
        return
    with paddle.no_grad():
        if not built.takes(tensors.parameters[0]):
            _step_by_reference(tensors, rates, decays, scales, beta1=beta1, beta2=beta2, epsilon=epsilon)
            return
        built.run(
            "adamw",
            list(tensors.parameters),
            [_dense(gradient) for gradient in tensors.gradients],
            list(tensors.moments1),
            list(tensors.moments2),
            list(tensors.powers1),
            list(tensors.powers2),
            list(rates),
            list(decays),
            list(scales),
            beta1,
            beta2,
            epsilon,
        )


def adamw_reference(
    parameter: paddle.Tensor,
    gradient: paddle.Tensor,
    moment1: paddle.Tensor,
    moment2: paddle.Tensor,
    power1: paddle.Tensor,
    power2: paddle.Tensor,
    *,
    rate: float,
    decay: float,
    beta1: float,
    beta2: float,
    epsilon: float,
) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
    """Compute one tensor's step in the readable form.

    Args:
        parameter: float32[...].
        gradient: float32[...].
        moment1: float32[...].
        moment2: float32[...].
        power1: float32[1], `beta1` to the power of the number of steps with this one.
        power2: float32[1], likewise.
        rate: the learning rate.
        decay: the coefficient of weight decay.
        beta1: of the first moment.
        beta2: of the second moment.
        epsilon: keeps the divisor from zero.

    Returns:
        The new parameter and moments.
    """
    first = beta1 * moment1 + (1 - beta1) * gradient
    second = beta2 * moment2 + (1 - beta2) * gradient.square()
    moved = (first / (1 - power1)) / ((second / (1 - power2)).sqrt() + epsilon)
    return parameter * (1 - rate * decay) - rate * moved, first, second


def squared_norms(tensors: Sequence[paddle.Tensor]) -> paddle.Tensor:
    """Sum each tensor's squares in float64: built for the CPU in one pass, the same bits for any number of threads.

    Args:
        tensors: float[...], any number of them, of one dtype and in one place.

    Returns:
        float64[N].
    """
    if not tensors:
        return paddle.zeros([0], dtype="float64")
    with paddle.no_grad():
        if built.takes(tensors[0]):
            return built.run("squared_norms", [_dense(tensor) for tensor in tensors])[0]
        return squared_norms_reference(tensors)


def squared_norms_reference(tensors: Sequence[paddle.Tensor]) -> paddle.Tensor:
    """Compute `squared_norms` in its readable form."""
    return paddle.stack([tensor.astype("float64").square().sum() for tensor in tensors])


def _step_by_reference(
    tensors: AdamWTensors, rates: Sequence[float], decays: Sequence[float], scales: Sequence[float], **numbers: Any
) -> None:
    lists = zip(*vars(tensors).values(), rates, decays, scales, strict=True)
    for parameter, gradient, moment1, moment2, power1, power2, rate, decay, scale in lists:
        stepped = adamw_reference(
            parameter, gradient * scale, moment1, moment2, power1, power2, rate=rate, decay=decay, **numbers
        )
        new = (*stepped, power1 * numbers["beta1"], power2 * numbers["beta2"])
        for old, value in zip((parameter, moment1, moment2, power1, power2), new, strict=True):
            paddle.assign(value, output=old)


def _dense(tensor: paddle.Tensor) -> paddle.Tensor:
    return tensor if tensor.is_contiguous() else tensor.contiguous()
