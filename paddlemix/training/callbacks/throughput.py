"""How fast a run goes through its records, and how much of what it computes on is padding."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from paddlemix.datasets.mix_dataset import MixDataset
from paddlemix.datasets.mixing.sampler import GlobalBatchSampler, Place


class Throughput:
    """Counts what all ranks' batches hold, by the sizes that were measured before training, and how long they take.

    Args:
        dataset: what is drawn from.
        sampler: draws it.
        packs: rows are packs, which are concatenated; else a batch's rows are padded to its longest.
    """

    def __init__(self, dataset: MixDataset, sampler: GlobalBatchSampler, *, packs: bool) -> None:
        self._tokens = dataset.sizes.column("tokens")
        self._images = dataset.sizes.column("images")
        self._sampler = sampler
        self._packs = packs
        self.begin()

    def begin(self) -> None:
        """Start the clock."""
        self._seconds, self._since = 0.0, time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock while evaluations and checkpoints are made.

        Yields:
            Nothing.
        """
        self._seconds += time.monotonic() - self._since
        try:
            yield
        finally:
            self._since = time.monotonic()

    def figures(self, steps: list[Place]) -> dict[str, float]:
        """Compute the speed since the last call. Call it within `paused`.

        Args:
            steps: the optimizer steps since then.

        Returns:
            tokens_per_second without padding and images_per_second, videos among these, of all ranks together, and
            padding, its share of all places of the batches; nothing where there is no step.
        """
        if not steps:
            return {}
        seconds, self._seconds = self._seconds, 0.0
        tokens = images = places = 0
        for epoch, step in steps:
            for batch in self._sampler.batches_of_all_ranks(epoch, step):
                lengths = [int(self._tokens[row].sum()) for row in batch]
                tokens += sum(lengths)
                images += sum(int(self._images[row].sum()) for row in batch)
                places += sum(lengths) if self._packs else len(lengths) * max(lengths, default=0)
        return {
            "tokens_per_second": tokens / seconds,
            "images_per_second": images / seconds,
            "padding": 1 - tokens / places,
        }
