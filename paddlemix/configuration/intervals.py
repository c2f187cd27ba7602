"""Intervals between checkpoints, evaluations and logs: numbers of steps, or shares of all steps of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

INTERVALS = ("logging_steps", "eval_steps", "save_steps")
# What PaddleNLP, which takes whole numbers alone, is told until the number of all steps is known.
STAND_INS = dict.fromkeys(INTERVALS, 1)


def is_share(value: float | None) -> bool:
    """Tell whether a valid value of an interval is a share of all steps."""
    return isinstance(value, float)


def has_shares(values: Mapping[str, Any]) -> bool:
    """Tell whether some interval of a config is a share."""
    return any(is_share(values[key]) for key in INTERVALS)


def times(outer: float, inner: float) -> int | None:
    """Tell how many of one interval another is; None where that is no whole number, or one of them alone is a share."""
    if is_share(outer) != is_share(inner):
        return None
    quotient = Fraction(str(outer)) / Fraction(str(inner))
    return quotient.numerator if quotient.denominator == 1 else None


def in_steps(values: Mapping[str, Any], total: int) -> dict[str, int]:
    """Count the steps that the intervals of a config are.

    Args:
        values: of a checked config.
        total: steps of the run.

    Returns:
        Steps by key. Shares are rounded up, as transformers does; where the best checkpoint is kept, a checkpoint
        stays a whole number of evaluations.
    """
    given = {**values, "eval_steps": values["eval_steps"] or values["logging_steps"]}
    steps = {key: math.ceil(total * given[key]) if is_share(given[key]) else given[key] for key in INTERVALS}
    evaluations = times(given["save_steps"], given["eval_steps"])
    if values["load_best_model_at_end"] and evaluations:
        steps["save_steps"] = evaluations * steps["eval_steps"]
    return steps
