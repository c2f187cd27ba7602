"""From what a sampler draws to weighted samples: how much each target token adds to the loss of a global batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from paddle.io import Dataset

from paddlemix.cache import cache_folder
from paddlemix.contract import Sample
from paddlemix.conversation import RecordError, RecordId
from paddlemix.datasets.mix_dataset import MixDataset
from paddlemix.datasets.mixing.rows import Row
from paddlemix.names import IGNORED_LABEL

LossPer = Literal["token", "sample"]


@dataclass(frozen=True)
class Draw:
    """One row of a batch, before its samples are read.

    Attributes:
        indices: the samples that the row shows.
        weights: for each of them, by what the loss of each of its target tokens is multiplied.
    """

    indices: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class WeightedSample:
    """A sample, and by what the loss of each of its target tokens is multiplied."""

    sample: Sample
    weight: float


def weigh(rows: Sequence[Row], targets: np.ndarray, loss_per: LossPer) -> list[Draw]:
    """Weigh the samples of one global batch so that the weighted sum of all their token losses is the batch's loss.

    Args:
        rows: all rows of the global batch, those of all ranks and accumulated batches.
        targets: int64[samples], target tokens of every sample that a row may name.
        loss_per: "token" takes the mean over all target tokens of the global batch, "sample" the mean over its samples
            of each one's mean; samples without targets count for nothing.

    Returns:
        A draw for each row.
    """
    members = [index for row in rows for index in row]
    counts = targets[members]
    if loss_per == "token":
        shares = np.full(len(members), 1 / max(counts.sum(), 1))
    else:
        shares = 1 / (np.maximum(counts, 1) * max(np.count_nonzero(counts), 1))
    weights = iter(shares.tolist())
    return [Draw(tuple(row), tuple(next(weights) for _ in row)) for row in rows]


def count_targets(labels: np.ndarray) -> int:
    """How many labels int64[L] of one sample are asked for; nothing predicts its first token."""
    return int((labels[1:] != IGNORED_LABEL).sum())


class DrawnDataset(Dataset):
    """A data set that is asked for draws, not for indices.

    Args:
        dataset: encodes the samples.
    """

    def __init__(self, dataset: MixDataset) -> None:
        super().__init__()
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, draw: Draw) -> list[WeightedSample]:
        """Encode the samples of a row.

        Args:
            draw: names and weighs them.

        Returns:
            The samples with their weights.

        Raises:
            RecordError: a record cannot be encoded, or is not as large as it was measured before training.
        """
        return [
            WeightedSample(self._encode(index), weight)
            for index, weight in zip(draw.indices, draw.weights, strict=True)
        ]

    def sources(self, draw: Draw) -> list[RecordId]:
        """The records of a row."""
        return [self._dataset.conversations[index].source for index in draw.indices]

    def _encode(self, index: int) -> Sample:
        sample, size = self._dataset[index], self._dataset.sizes[index]
        found = (len(sample.input_ids), count_targets(sample.labels))
        if found != (size.tokens, size.target_tokens):
            raise RecordError(
                self._dataset.conversations[index].source,
                f"the record has {found[0]} tokens, {found[1]} of them targets, but {size.tokens} and "
                f"{size.target_tokens} were measured before training: an image or video of it has changed since. "
                f"Remove {cache_folder('sizes')}, where sizes are kept from run to run, and start again.",
            )
        return sample
