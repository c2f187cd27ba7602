"""The order in which training draws its samples, in batches that know how much each sample counts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from paddle.io import DistributedBatchSampler

from paddlemix.datasets.mixing.loss_weights import LossPer, WeightedRow, weigh
from paddlemix.datasets.mixing.rows import Row, RowPlan

T = TypeVar("T")
# Where an optimizer step draws: the epoch, and the step within it.
Place = tuple[int, int]


@dataclass(frozen=True)
class BatchShape:
    """How many rows an optimizer step takes, and who computes which of them.

    Attributes:
        rows: per batch, which is one forward pass of one rank.
        accumulation: batches of each rank per optimizer step.
        ranks: processes that share the work.
        rank: this one.
    """

    rows: int
    accumulation: int = 1
    ranks: int = 1
    rank: int = 0

    @property
    def wide(self) -> int:
        """Rows that all ranks compute at the same time."""
        return self.rows * self.ranks

    @property
    def all_rows(self) -> int:
        """Rows of a global batch."""
        return self.wide * self.accumulation


class GlobalBatchSampler(DistributedBatchSampler):
    """Every sample once an epoch, in batches that know what the other ranks and accumulated batches hold.

    A global batch is all that one optimizer step sees. Its rows are weighed together, so that the sum of all ranks'
    and accumulated batches' losses is the global batch's. All ranks plan the same epoch and take their share of it, and
    so need not ask one another. The last global batch of an epoch may be smaller; where it has fewer rows than there
    are batches to fill, the row with the fewest samples is drawn again with weights of 0.

    Args:
        dataset: what is drawn from.
        plan: the rows of each epoch.
        targets: int64[samples], target tokens.
        shape: of the batches.
        loss_per: see `weigh`.
        drop_last: leave out the last global batch of an epoch where it is smaller, unless it is the only one.
    """

    def __init__(
        self,
        dataset: Any,
        plan: RowPlan,
        targets: np.ndarray,
        shape: BatchShape,
        *,
        loss_per: LossPer = "token",
        drop_last: bool = False,
    ) -> None:
        super().__init__(dataset, shape.rows, num_replicas=shape.ranks, rank=shape.rank, drop_last=drop_last)
        self.plan = plan
        self.targets = np.asarray(targets)
        self.shape = shape
        self.loss_per: LossPer = loss_per
        self._first_step = 0
        self._rows: tuple[int, Sequence[Row]] = (0, ())

    @cached_property
    def first_rows(self) -> Sequence[Row]:
        """The rows of the first epoch; they decide how many steps every epoch takes."""
        return self.plan.rows(0)

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return self._count_steps(self.first_rows)

    def __len__(self) -> int:
        """Count this rank's batches in an epoch."""
        return self.steps * self.shape.accumulation

    def __iter__(self) -> Iterator[list[WeightedRow]]:
        """Yield this rank's batches; `set_epoch` chooses the epoch."""
        first, self._first_step = self._first_step, 0
        for step in range(first, self.steps):
            yield from self._batches(self.rows_of(self.epoch, step))

    def begin_at(self, step: int) -> None:
        """Let the next iteration begin in the middle of its epoch.

        Args:
            step: the first optimizer step of it.
        """
        self._first_step = step

    def rows_of(self, epoch: int, step: int) -> Sequence[Row]:
        """Return the rows of a global batch, those of all ranks.

        Args:
            epoch: from 0 on.
            step: of the epoch, from 0 on.

        Returns:
            The rows, nothing after the end of the epoch.
        """
        if epoch and self._rows[0] != epoch:
            self._rows = epoch, self._epoch_rows(epoch)
        rows, size = self._rows[1] if epoch else self.first_rows, self.shape.all_rows
        return rows[step * size : (step + 1) * size]

    def batches_of(self, epoch: int, step: int) -> list[list[WeightedRow]]:
        """Return this rank's batches of a global batch, as `rows_of` numbers them."""
        return list(self._batches(self.rows_of(epoch, step)))

    def batches_of_all_ranks(self, epoch: int, step: int) -> list[Sequence[Row]]:
        """Return the rows of each batch of a global batch, of all ranks, without rows that are drawn again."""
        ranks, rows = self.shape.ranks, self.rows_of(epoch, step)
        return [wide[rank::ranks] for wide in self._by_forward_pass(rows) for rank in range(ranks)]

    @cached_property
    def fingerprint(self) -> str:
        """A text that differs from another sampler's where the two draw other global batches."""
        digest = hashlib.sha256(repr((self.steps, self.shape.all_rows, self.loss_per, self.drop_last)).encode())
        digest.update(repr([list(self.rows_of(0, step)) for step in (0, self.steps // 2)]).encode())
        digest.update(np.ascontiguousarray(self.targets).tobytes())
        return digest.hexdigest()

    def _epoch_rows(self, epoch: int) -> Sequence[Row]:
        """Return the epoch's own rows, or the first epoch's where its own take more or fewer steps, in another order.

        Packs of another order may be one more or fewer, and the trainer takes every epoch for as long as the first.
        """
        rows = self.plan.rows(epoch)
        if self._count_steps(rows) == self.steps:
            return rows
        if self.plan.in_order:
            return self.first_rows
        order = np.random.default_rng(epoch).permutation(len(self.first_rows))
        return [self.first_rows[place] for place in order.tolist()]

    def _count_steps(self, rows: Sequence[Row]) -> int:
        whole, rest = divmod(len(rows), self.shape.all_rows)
        return whole + (1 if rest and not (self.drop_last and whole) else 0)

    def _batches(self, rows: Sequence[Row]) -> Iterator[list[WeightedRow]]:
        """Yield this rank's share of one global batch."""
        weighted = weigh(rows, self.targets, self.loss_per)
        filler = _filler(weighted)
        for wide in self._by_forward_pass(weighted):
            yield list(wide[self.shape.rank :: self.shape.ranks]) or [filler]

    def _by_forward_pass(self, members: Sequence[T]) -> Iterator[Sequence[T]]:
        """Cut a global batch into what all ranks compute at the same time."""
        batches = self.shape.accumulation
        for start, end in pairwise(len(members) * batch // batches for batch in range(batches + 1)):
            yield members[start:end]


class WholeSetSampler:
    """All samples of a set once, shared out among the ranks and weighed as one batch: their losses add up to the mean.

    Ranks that would get less than the others draw the row with the fewest samples once more, with weights of 0.

    Args:
        rows: what each row of a batch shows.
        targets: int64[samples], target tokens.
        shape: of the batches.
        max_batches: batches of each rank to stop after; 0 takes all.

    Attributes:
        targets: as given.
        drawn_targets: those of all samples that are drawn, by all ranks.
    """

    targets: np.ndarray
    drawn_targets: int

    def __init__(self, rows: Sequence[Row], targets: np.ndarray, shape: BatchShape, *, max_batches: int = 0) -> None:
        taken = rows[: max_batches * shape.wide] if max_batches else rows
        self.targets = np.asarray(targets)
        self.drawn_targets = int(self.targets[[index for row in taken for index in row]].sum())
        weighted = _shared_out(weigh(taken, self.targets, "token"), shape)
        self.batch_size = shape.rows
        self._batches = [weighted[start : start + shape.rows] for start in range(0, len(weighted), shape.rows)]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[WeightedRow]]:
        """Yield this rank's batches, in the order of the rows."""
        return iter(self._batches)


def _shared_out(weighted: list[WeightedRow], shape: BatchShape) -> list[WeightedRow]:
    """Take this rank's share; as many as the others have, so that all call the model as often."""
    share, most = weighted[shape.rank :: shape.ranks], -(-len(weighted) // shape.ranks)
    return share if len(share) == most else [*share, _filler(weighted)]


def _filler(weighted: list[WeightedRow]) -> WeightedRow:
    """Return the row with the fewest samples, with weights of 0."""
    fewest = min((row.indices for row in weighted), key=len)
    return WeightedRow(fewest, (0.0,) * len(fewest))
