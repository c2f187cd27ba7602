"""What a model's answers to records cost."""

from __future__ import annotations

from collections.abc import Callable

import paddle

from paddlemix.calibration.records import ChosenRecords
from paddlemix.models.base import MixPretrainedModel
from paddlemix.ops.denormals import flushed_denormals


@flushed_denormals()
def mean_loss(model: MixPretrainedModel, records: ChosenRecords, done: Callable[[], object] = lambda: None) -> float:
    """Compute the mean loss of the records' target tokens.

    Args:
        model: in evaluation mode.
        records: its batches.
        done: called after each batch.

    Returns:
        The loss.
    """
    total = 0.0
    for batch in records:
        with paddle.no_grad():
            total += float(model(**batch.inputs, last_logits_only=True).loss)
        done()
    return total
