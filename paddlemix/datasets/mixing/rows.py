"""What the rows of an epoch's batches show: one sample each, or a pack of several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np

from paddlemix.datasets.mixing.packs import PackPlanner

# Batches sorted together: enough that a batch's lengths are close, few enough that the order stays random.
GROUPED_BATCHES = 50
# Keeps what is random here apart from the mixture's order, which has the same seed.
_OWN = 1

# Indices of the samples that one row shows.
Row = list[int]


@dataclass(frozen=True)
class RowPlan(ABC):
    """The rows of any epoch.

    Attributes:
        lengths: int64[samples], tokens.
        order: `order(epoch)` is int64[n], the samples that an epoch draws, as `Mixture.order` gives them.
        seed: of what is not `order`'s to say.
        in_order: whether the rows show the samples in the order of `order`, and not roughly so.
    """

    lengths: np.ndarray
    order: Callable[[int], np.ndarray]
    seed: int
    in_order: bool = field(default=False, kw_only=True)

    @abstractmethod
    def rows(self, epoch: int) -> Sequence[Row]:
        """Plan an epoch.

        Args:
            epoch: from 0 on; it and the seed alone decide.

        Returns:
            Every sample that the epoch draws, in the order in which it trains them.
        """


@dataclass(frozen=True)
class SingleRows(RowPlan):
    """One sample a row.

    Attributes:
        grouped: rows next to one another that are to be of about the same length, because they are padded together; 1
            leaves the order random.
    """

    grouped: int = 1

    def rows(self, epoch: int) -> Sequence[Row]:
        """Give each sample a row, in the order of the epoch; see `RowPlan.rows`."""
        order = self.order(epoch)
        if self.grouped > 1:
            order = self._by_length(order, np.random.default_rng([self.seed, epoch, _OWN]))
        return _Singles(order)

    def _by_length(self, order: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Sort windows of the order by length, cut them into batches, shuffle the batches."""
        windows = _cut(order, self.grouped * GROUPED_BATCHES)
        ordered = np.concatenate([window[np.argsort(self.lengths[window], kind="stable")] for window in windows])
        batches = _cut(ordered, self.grouped)
        whole = [batch for batch in batches if len(batch) == self.grouped]
        generator.shuffle(whole)
        return np.concatenate(whole + [batch for batch in batches if len(batch) < self.grouped])


@dataclass(frozen=True)
class PackedRows(RowPlan):
    """A pack a row.

    Attributes:
        planner: puts samples into packs.
    """

    planner: PackPlanner

    def rows(self, epoch: int) -> list[Row]:
        """Pack the samples; other epochs pack them otherwise. See `RowPlan.rows`."""
        if self.in_order:
            return self.planner.plan_in_order(self.order(epoch), self.lengths)
        return self.planner.plan(self.order(epoch), self.lengths, np.random.default_rng([self.seed, epoch, _OWN]))


class _Singles(Sequence[Row]):
    """A row for each sample; a million of them take no more than their order."""

    def __init__(self, order: np.ndarray) -> None:
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...

    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        if isinstance(place, slice):
            return [[index] for index in self._order[place].tolist()]
        return [int(self._order[place])]


def _cut(order: np.ndarray, size: int) -> Sequence[np.ndarray]:
    return [order[start : start + size] for start in range(0, len(order), size)]
