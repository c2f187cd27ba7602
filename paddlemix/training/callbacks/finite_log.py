"""Figures that are NaN or infinite, for which JSON has no number: logs and results have null in their place."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)


class FiniteLog:
    """Makes entries of a log ones that JSON can hold, and warns of each figure that it cannot, once a figure."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def entry(self, figures: Mapping[str, Any], step: int) -> dict[str, Any]:
        """Put None in the place of what is NaN or infinite.

        Args:
            figures: by name.
            step: at which they are logged.

        Returns:
            The same names.
        """
        found = with_nulls(figures)
        for name in (name for name in found if found[name] is None and figures[name] is not None):
            if name not in self._told:
                self._told.add(name)
                logger.warning(
                    "step %d: `%s` is %s; JSON has no such number, and the log has null in its place%s. It is said "
                    "once a run.",
                    step,
                    name,
                    float(figures[name]),
                    _REASONS.get(name, ""),
                )
        return found


def with_nulls(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return figures with None in the place of those that are NaN or infinite."""
    return {name: None if _is_unsound(value) else value for name, value in figures.items()}


_REASONS = {"grad_norm": " (in fp16 such a step is left out, and the scale of the loss halved)"}


def _is_unsound(value: Any) -> bool:
    return isinstance(value, (float, np.floating)) and not math.isfinite(value)
