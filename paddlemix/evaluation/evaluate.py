"""Scoring a model by what it generates for sets of records."""

from __future__ import annotations

from typing import Any

from paddlemix.contract import Model, Processor
from paddlemix.datasets.mix_dataset import MixDataset
from paddlemix.evaluation.predict import predict_set
from paddlemix.evaluation.report import Prediction, score
from paddlemix.generation import GenerationConfig


def evaluate_model(
    model: Model, processor: Processor, mix: MixDataset, config: GenerationConfig, *, batch_size: int
) -> tuple[dict[str, Any], list[Prediction]]:
    """Let the model answer every set of a mixture and score all answers together.

    Args:
        model: in evaluation mode.
        processor: of the model's family.
        mix: each conversation ends with the right answer.
        config: how answers are written.
        batch_size: conversations answered at once.

    Returns:
        The report of `score`, and the predictions in the order of the records.

    Raises:
        ValueError: a record cannot be scored.
    """
    predictions: list[Prediction] = []
    for name, conversations in mix.conversations_by_set():
        predictions += predict_set(model, processor, conversations, config, batch_size=batch_size, title=name)
    return score(predictions), predictions
