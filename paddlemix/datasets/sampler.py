"""The order in which training draws its samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from paddle.io import DistributedBatchSampler

# Batches sorted together: enough that a batch's lengths are close, few enough that the order stays random.
GROUPED_BATCHES = 50


class ShuffledBatchSampler(DistributedBatchSampler):
    """Batches of every sample once an epoch, in an order that seed and epoch alone decide.

    Args:
        dataset: what is drawn from.
        lengths: tokens per sample.
        batch_size: samples per batch and rank.
        group_by_length: put samples of about the same length into a batch, so that little is padded.
        seed: of the order.
        num_replicas: ranks; each gets its own share of the batches.
        rank: this rank.
        drop_last: leave out the last batch of an epoch where it is short.
    """

    def __init__(
        self,
        dataset: Any,
        lengths: Sequence[int],
        *,
        batch_size: int,
        group_by_length: bool,
        seed: int,
        num_replicas: int = 1,
        rank: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__(dataset, batch_size, num_replicas=num_replicas, rank=rank, shuffle=True, drop_last=drop_last)
        self.lengths = np.asarray(lengths)
        self.group_by_length = group_by_length
        self.seed = seed

    def __iter__(self) -> Iterator[list[int]]:
        """Yield this rank's batches of dataset indices; `set_epoch` chooses the epoch."""
        generator = np.random.default_rng([self.seed, self.epoch])
        # Filled up from the start, so that all ranks have as many samples.
        order = np.resize(generator.permutation(len(self.lengths)), self.total_size)
        wide = self.batch_size * self.nranks
        if self.group_by_length:
            order = self._grouped(order, wide, generator)
        for start in range(0, len(order), wide):
            batch = order[start : start + wide][self.local_rank :: self.nranks].tolist()
            if not (self.drop_last and len(batch) < self.batch_size):
                yield batch

    def _grouped(self, order: np.ndarray, wide: int, generator: np.random.Generator) -> np.ndarray:
        """Sort windows of the order by length, cut them into batches, shuffle the batches."""
        size = wide * GROUPED_BATCHES
        windows = [order[start : start + size] for start in range(0, len(order), size)]
        ordered = np.concatenate([window[np.argsort(self.lengths[window], kind="stable")] for window in windows])
        batches = [ordered[start : start + wide] for start in range(0, len(ordered), wide)]
        whole = [batch for batch in batches if len(batch) == wide]
        generator.shuffle(whole)
        return np.concatenate(whole + [batch for batch in batches if len(batch) < wide])
