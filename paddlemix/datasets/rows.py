"""What the rows of an epoch's batches show: one sample each, or a pack of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from paddlemix.datasets.mixtoken import PackPlanner

# Batches sorted together: enough that a batch's lengths are close, few enough that the order stays random.
GROUPED_BATCHES = 50

# Indices of the samples that one row shows.
Row = list[int]


class RowPlan(Protocol):
    """The rows of any epoch."""

    def rows(self, epoch: int) -> list[Row]:
        """Every sample once, in the order in which the epoch trains it; seed and epoch alone decide."""
        ...


@dataclass(frozen=True)
class SingleRows:
    """One sample a row.

    Attributes:
        lengths: int64[samples], tokens.
        seed: of the order.
        grouped: rows next to one another that are to be of about the same length, because they are padded together; 1
            leaves the order random.
    """

    lengths: np.ndarray
    seed: int
    grouped: int = 1

    def rows(self, epoch: int) -> list[Row]:
        """All samples, shuffled."""
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(len(self.lengths))
        if self.grouped > 1:
            order = self._by_length(order, generator)
        return [[index] for index in order.tolist()]

    def _by_length(self, order: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Sort windows of the order by length, cut them into batches, shuffle the batches."""
        windows = _cut(order, self.grouped * GROUPED_BATCHES)
        ordered = np.concatenate([window[np.argsort(self.lengths[window], kind="stable")] for window in windows])
        batches = _cut(ordered, self.grouped)
        whole = [batch for batch in batches if len(batch) == self.grouped]
        generator.shuffle(whole)
        return np.concatenate(whole + [batch for batch in batches if len(batch) < self.grouped])


@dataclass(frozen=True)
class PackedRows:
    """A pack a row.

    Attributes:
        lengths: int64[samples], tokens.
        seed: of the order.
        planner: puts samples into packs.
    """

    lengths: np.ndarray
    seed: int
    planner: PackPlanner

    def rows(self, epoch: int) -> list[Row]:
        """All samples, shuffled and packed; other epochs pack them otherwise."""
        generator = np.random.default_rng([self.seed, epoch])
        return self.planner.plan(generator.permutation(len(self.lengths)), self.lengths, generator)


def _cut(order: np.ndarray, size: int) -> Sequence[np.ndarray]:
    return [order[start : start + size] for start in range(0, len(order), size)]
