"""The best checkpoint of a run, and stopping once evaluations no longer improve."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from paddlenlp.trainer import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from paddlemix.configuration.best_metric import metric_name

logger = logging.getLogger(__name__)


class EarlyStopping(EarlyStoppingCallback):
    """PaddleNLP's, with a count that checkpoints keep, or a killed run would be more patient than one left alone.

    Args:
        patience: evaluations in a row that may fail to improve on the best.
        threshold: what counts as an improvement must be larger.
    """

    def __init__(self, patience: int, threshold: float) -> None:
        super().__init__(patience, threshold)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Do nothing: what PaddleNLP asserts here is a rule of the config."""

    @property
    def is_met(self) -> bool:
        """Whether training is to stop."""
        return self.early_stopping_patience_counter >= self.early_stopping_patience


class BestCheckpoint(TrainerCallback):
    """Finds the best checkpoint of the earlier attempt again when a run goes on, also where its folder was moved."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look beside the new checkpoints, then where it was."""
        if state.best_model_checkpoint is None:
            return
        there = Path(state.best_model_checkpoint)
        found = next((path for path in (Path(args.output_dir) / there.name, there) if path.is_dir()), None)
        if found is None:
            logger.warning("%s, the best checkpoint so far, is gone; the best is looked for from here on.", there)
            state.best_metric = None
        state.best_model_checkpoint = None if found is None else str(found)


def note_best(state: TrainerState, args: TrainingArguments, metrics: dict[str, float] | None, checkpoint: Path) -> None:
    """Note a checkpoint that is better than the best so far; none is by a metric that is NaN or infinite.

    Args:
        state: changed.
        args: say which metric counts.
        metrics: of the evaluation at this step; None where there was none.
        checkpoint: that is about to be saved.

    Raises:
        ValueError: evaluation does not give the metric that counts.
    """
    if metrics is None or args.metric_for_best_model is None:
        return
    name = f"eval_{metric_name(args.metric_for_best_model)}"
    if name not in metrics:
        given = ", ".join(metric.removeprefix("eval_") for metric in metrics)
        raise ValueError(
            f"`metric_for_best_model` is {args.metric_for_best_model!r}, which evaluation does not give; it "
            f"gives {given}."
        )
    if not np.isfinite(metrics[name]):
        return
    is_better = np.greater if args.greater_is_better else np.less
    if state.best_metric is None or state.best_model_checkpoint is None or is_better(metrics[name], state.best_metric):
        state.best_metric, state.best_model_checkpoint = metrics[name], str(checkpoint)
