"""Scoring a model by what it generates for sets of records."""

from __future__ import annotations

from typing import Any

from paddlemix.contract import Model, Processor
from paddlemix.conversation import RecordError
from paddlemix.datasets.bad_records import BadRecords
from paddlemix.datasets.mix_dataset import MixDataset
from paddlemix.evaluation.predict import predict_set
from paddlemix.evaluation.report import Prediction, report_of
from paddlemix.generation import GenerationConfig


def evaluate_model(
    model: Model, processor: Processor, mix: MixDataset, config: GenerationConfig, *, batch_size: int
) -> tuple[dict[str, Any], list[Prediction]]:
    """Let the model answer every set of a mixture and score all answers together.

    Where the mixture skips bad records, those that cannot be used are left out, and named in the log.

    Args:
        model: in evaluation mode.
        processor: of the model's family.
        mix: each conversation ends with the right answer.
        config: how answers are written.
        batch_size: conversations answered at once.

    Returns:
        The report of `score`, with the number of records `left_out` where they may be; and the predictions in the
        order of the records.

    Raises:
        ValueError: a record cannot be used or scored, or none is left.
    """
    skip, names = mix.on_bad_record == "skip", BadRecords()
    predictions: list[Prediction] = []
    left_out = len(mix.skipped)
    for name, conversations in mix.conversations_by_set():
        for found in predict_set(model, processor, conversations, config, batch_size=batch_size, title=name, skip=skip):
            if isinstance(found, RecordError):
                names.add(found, name, None)
                left_out += 1
            else:
                predictions.append(found)
    return report_of(predictions, left_out if skip else None), predictions
