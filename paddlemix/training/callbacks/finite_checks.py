"""Losses and weights that are NaN or infinite: the run stops and says on which records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np
import paddle
from paddle import nn

from paddlemix.conversation import RecordId

Batch = Sequence[Any]


class Sources(Protocol):
    """Knows which records a row of a batch was made of."""

    def sources(self, row: Any, /) -> Sequence[RecordId]:
        """Return where the records of a row are written."""
        ...


_LISTED = 20
ADVICE = (
    "Training has stopped, the checkpoints are as they were. Look at these records, or lower `learning_rate` or "
    "`max_grad_norm`."
)

FLOAT16_ADVICE = (
    " In float16 numbers above 65,504 are infinite, which those inside some models are: bfloat16 has room for them "
    "(`bf16` in place of `fp16`)."
)


class NonFiniteError(ValueError):
    """A loss or a weight is NaN or infinite; the message names the records."""


def check_losses(
    total: float,
    losses: Sequence[paddle.Tensor],
    draw: Callable[[], Sequence[Batch]],
    dataset: Sources,
    *,
    step: int,
    in_float16: bool = False,
) -> None:
    """Stop where a step's loss is NaN or infinite. The losses of its batches are looked at only then.

    Args:
        total: of the step and those before it that were not logged yet.
        losses: float32[] of each batch of the step.
        draw: gives the batches again, each a list of draws.
        dataset: names their records by `sources(draw)`.
        step: of the run, from 1 on.
        in_float16: whether the run computes in it.

    Raises:
        NonFiniteError: `total` is NaN or infinite.
    """
    if np.isfinite(total):
        return
    batches, values = draw(), [float(loss) for loss in losses]
    bad = [batch for batch, value in zip(batches, values, strict=False) if not np.isfinite(value)]
    value = next((value for value in values if not np.isfinite(value)), total)
    raise NonFiniteError(
        f"the loss of step {step} is {value}; its batch: {name_records(bad or batches, dataset)}. {ADVICE}"
        + (FLOAT16_ADVICE if in_float16 else "")
    )


def check_weights(model: nn.Layer, step: int, records: Callable[[], str]) -> None:
    """Refuse to save weights that are NaN or infinite: no run could go on from such a checkpoint.

    Args:
        model: whose trained parameters are looked at.
        step: after which they are saved.
        records: names those of that step.

    Raises:
        NonFiniteError: a weight is NaN or infinite.
    """
    for name, parameter in model.named_parameters():
        if not parameter.stop_gradient and not bool(paddle.isfinite(parameter.astype("float32").sum())):
            raise NonFiniteError(
                f"after step {step} {name} holds NaN or infinities, so no checkpoint of it is saved; the step's "
                f"records: {records()}. {ADVICE}"
            )


def name_records(batches: Sequence[Batch], dataset: Sources) -> str:
    """Name the files and indices of the records of some batches, the first 20 of them."""
    records: list[RecordId] = [record for batch in batches for draw in batch for record in dataset.sources(draw)]
    rest = len(records) - _LISTED
    return "; ".join(map(str, islice(records, _LISTED))) + (f" and {rest} more" if rest > 0 else "")
