"""What is really drawn of each set while a run trains."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from paddlemix.datasets.mix_dataset import MixDataset, SetSummary
from paddlemix.datasets.mixing.sampler import GlobalBatchSampler, Place


class MixtureLog:
    """Counts the records of each set in all ranks' batches.

    Args:
        dataset: what is drawn from.
        sampler: draws it.
    """

    def __init__(self, dataset: MixDataset, sampler: GlobalBatchSampler) -> None:
        self._mixture = dataset.mixture
        self._names = set_names(dataset.set_summaries())
        self._sampler = sampler

    def shares(self, steps: list[Place]) -> dict[str, float]:
        """Compute what share of each set was drawn in some optimizer steps.

        Args:
            steps: which.

        Returns:
            By `mixture/<set>` the share of the records that were its; nothing where there is one set or no step.
        """
        if len(self._names) < 2 or not steps:
            return {}
        rows = [row for epoch, step in steps for row in self._sampler.rows_of(epoch, step)]
        sets = self._mixture.set_of([record for row in rows for record in row])
        shares = np.bincount(sets, minlength=len(self._names)) / len(sets)
        return {f"mixture/{name}": float(share) for name, share in zip(self._names, shares, strict=True)}


def set_names(summaries: list[SetSummary]) -> list[str]:
    """Name each set, no two alike: after its first file, with the set's number from 1 on where two are alike."""
    stems = [Path(summary.files[0]).stem or summary.name for summary in summaries]
    times = Counter(stems)
    return [stem if times[stem] == 1 else f"{stem}_{place}" for place, stem in enumerate(stems, start=1)]
