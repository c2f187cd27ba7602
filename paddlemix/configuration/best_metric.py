"""Whether evaluation gives what `metric_for_best_model` names; found out before training, not at a checkpoint.

The config alone tells of names that are no scores, and of scores that no set's format can have; the records tell the
rest, such as whether chats ask for boxes, or a question has the ten answers of VQAv2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from paddlemix.configuration.arguments import DatasetItem, FinetuneConfig
from paddlemix.configuration.problems import ConfigError, Problem
from paddlemix.datasets.formats import FORMATS
from paddlemix.evaluation.score_names import ALL_SCORES, section_of

LOSS = "loss"


class ScoredAnswers(Protocol):
    """An evaluation of what a model answers, as far as it is asked here."""

    def score_names(self) -> list[str]:
        """Name the scores that it gives, whatever the model answers; a record that cannot be scored is an error."""
        ...


def metric_name(metric: str | None) -> str:
    """Take PaddleNLP's `eval_` off a `metric_for_best_model`; null is the loss."""
    return LOSS if metric is None else metric.removeprefix("eval_")


def is_known_metric(metric: str | None) -> bool:
    """Tell whether some evaluation gives a metric."""
    return metric_name(metric) in (LOSS, *ALL_SCORES)


def may_give(sets: Sequence[DatasetItem], metric: str | None) -> bool:
    """Tell whether, by their formats, evaluation sets can have a known metric.

    Args:
        sets: of `dataset.eval`.
        metric: a `metric_for_best_model`.

    Returns:
        True where a set's format is "auto", or unknown: loading it tells more.
    """
    section = section_of(metric_name(metric))
    return section is None or any(one.name not in FORMATS or section in _sections(one.name) for one in sets)


def formats_of(section: str) -> list[str]:
    """List the record formats whose sets can be scored in a section."""
    return [name for name in FORMATS if section in _sections(name)]


def check_best_metric(config: FinetuneConfig, answers: ScoredAnswers | None) -> None:
    """Refuse records that cannot be scored, and a `metric_for_best_model` that they do not give.

    Args:
        config: checked.
        answers: the run's evaluation of answers; None where the loss is all that is evaluated.

    Raises:
        ConfigError: the records do not give the metric.
        RecordError: a record's right answer cannot be scored.
    """
    if answers is None:
        return
    metric, given = config.training["metric_for_best_model"], answers.score_names()
    if metric_name(metric) in (LOSS, *given):
        return
    text = (
        f'`metric_for_best_model` is "{metric}", which the records of `dataset.eval` do not give; expected "{LOSS}" or '
        f"one of {', '.join(given)}. Choose one of them, or add records that give it."
    )
    raise ConfigError([Problem(config.place("metric_for_best_model"), text)])


def _sections(format_name: str) -> tuple[str, ...]:
    task = FORMATS[format_name].task
    return ("chat", "grounding", "pointing") if task == "chat" else (task,)
