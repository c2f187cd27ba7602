"""Which checkpoint is the best so far."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from paddlenlp.trainer import TrainerState

from paddlemix.training.callbacks.early_stopping import note_best


def args_for(metric: str) -> SimpleNamespace:
    return SimpleNamespace(metric_for_best_model=metric, greater_is_better=True)


@pytest.mark.parametrize("metric", ["vqa_exact_match", "eval_vqa_exact_match"])
def test_a_better_score_is_noted_and_one_as_good_is_not(metric: str) -> None:
    state = TrainerState()
    for step, value in enumerate((0.5, 0.5, 0.75, 0.25), start=1):
        note_best(state, args_for(metric), {"eval_vqa_exact_match": value}, Path(f"checkpoint-{step}"))
    assert (state.best_metric, state.best_model_checkpoint) == (0.75, "checkpoint-3")


def test_a_score_that_evaluation_does_not_give_is_told_with_those_that_it_gives() -> None:
    metrics = {"eval_loss": 1.0, "eval_vqa_exact_match": 0.5}
    with pytest.raises(ValueError, match="'vqa_accuracy', which .* gives loss, vqa_exact_match"):
        note_best(TrainerState(), args_for("vqa_accuracy"), metrics, Path("checkpoint-1"))
