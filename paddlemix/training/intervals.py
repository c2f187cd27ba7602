"""How many steps lie between a run's checkpoints, evaluations and logs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from paddlenlp.trainer import TrainingArguments

from paddlemix.configuration.intervals import has_shares, in_steps, is_share

logger = logging.getLogger(__name__)


def count_intervals(args: TrainingArguments, values: Mapping[str, Any], total: int) -> None:
    """Put numbers of steps in place of the shares of a config, and say them.

    Args:
        args: of the run; changed.
        values: of the config, by key.
        total: steps of the run.
    """
    if not has_shares(values):
        return
    for key, steps in in_steps(values, total).items():
        setattr(args, key, steps)
        if is_share(values[key]):
            logger.info("`%s` is %s of %s steps: every %s.", key, values[key], f"{total:,}", f"{steps:,}")
