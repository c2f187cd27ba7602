"""Which records an epoch draws and in which order: sets one with another, by their weights or as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

MixStrategy = Literal["concat", "interleave_under", "interleave_over"]


@dataclass(frozen=True)
class MixedSet:
    """What a mixture knows of a set.

    Attributes:
        count: records.
        weight: probability mass, where sets are interleaved.
        repeat: how often an epoch goes through the set; of a part of a time, another part of the records each epoch.
    """

    count: int
    weight: float = 1.0
    repeat: float = 1.0


@dataclass(frozen=True)
class Mixture:
    """The order of every epoch, decided by `seed` and the epoch's number alone.

    Records are numbered through, those of the first set first.

    Attributes:
        sets: at least one, each with records.
        strategy: "concat" draws all records of all sets, shuffled. "interleave_under" draws from the sets by their
            weights, evenly all over the epoch, until the first of them has no more; "interleave_over" until each has
            been gone through, beginning the others again, in another order.
        seed: of the order.
        shuffle: False keeps the order of the files: "concat" draws one set after the other, the others draw each set
            in its order. A set of which an epoch draws a part goes on in the next where it was.
    """

    sets: tuple[MixedSet, ...]
    strategy: MixStrategy = "concat"
    seed: int = 0
    shuffle: bool = True

    def __post_init__(self) -> None:
        if self.strategy not in get_args(MixStrategy):
            raise ValueError(f"`mix_strategy` is {self.strategy!r}; expected one of {', '.join(get_args(MixStrategy))}")

    @property
    def offsets(self) -> np.ndarray:
        """int64[sets + 1], the number of each set's first record."""
        return np.cumsum([0, *(one.count for one in self.sets)])

    @property
    def draws(self) -> tuple[int, ...]:
        """How many records an epoch draws of each set."""
        once = [max(round(one.count * one.repeat), 1) for one in self.sets]
        if self.strategy == "concat":
            return tuple(once)
        # A set's k-th record comes when k / weight of the time has gone by.
        times = [count / one.weight for count, one in zip(once, self.sets, strict=True)]
        end = min(times) if self.strategy == "interleave_under" else max(times)
        # A rounding error must not lose the record with which a set ends just then.
        return tuple(max(int(end * one.weight + 1e-9 * count), 1) for count, one in zip(once, self.sets, strict=True))

    def __len__(self) -> int:
        """Count the records that an epoch draws."""
        return sum(self.draws)

    def order(self, epoch: int) -> np.ndarray:
        """Draw the records of an epoch.

        Args:
            epoch: from 0 on.

        Returns:
            int64[n]; n is the same for every epoch.
        """
        if not self.shuffle:
            return self._order_of_files(epoch)
        generator = np.random.default_rng([self.seed, epoch])
        starts, draws = self.offsets, self.draws
        drawn = [
            start + _passes(one.count, n, generator)
            for start, one, n in zip(starts[:-1], self.sets, draws, strict=True)
        ]
        if self.strategy == "concat":
            return generator.permutation(np.concatenate(drawn))
        times = [(np.arange(n) + generator.random(n)) / n for n in draws]
        return np.concatenate(drawn)[np.argsort(np.concatenate(times), kind="stable")]

    def _order_of_files(self, epoch: int) -> np.ndarray:
        starts, draws = self.offsets, self.draws
        drawn = [
            start + (epoch * n + np.arange(n)) % one.count
            for start, one, n in zip(starts[:-1], self.sets, draws, strict=True)
        ]
        if self.strategy == "concat":
            return np.concatenate(drawn)
        times = [(np.arange(n) + 0.5) / n for n in draws]
        return np.concatenate(drawn)[np.argsort(np.concatenate(times), kind="stable")]

    def set_of(self, records: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the number of the set that each record belongs to, int64[n]."""
        return np.searchsorted(self.offsets, np.asarray(records), side="right") - 1


def _passes(count: int, draws: int, generator: np.random.Generator) -> np.ndarray:
    """Draw int64[draws] of `count` records, shuffled pass after pass: none comes again before all others have come."""
    passes = [generator.permutation(count) for _ in range(-(-draws // count))]
    return np.concatenate(passes)[:draws]
