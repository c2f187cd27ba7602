"""How much each target token adds to the loss of a global batch, whichever rank and accumulated batch it is in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from paddlemix.contract import Sample
from paddlemix.datasets.mixing.rows import Row
from paddlemix.names import IGNORED_LABEL

LossPer = Literal["token", "sample"]


@dataclass(frozen=True)
class WeightedRow:
    """One row of a batch, before its samples are read.

    Attributes:
        indices: the samples that the row shows.
        weights: for each of them, by what the loss of each of its target tokens is multiplied, beside the weight that
            the token has in its sample.
    """

    indices: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class WeightedSample:
    """A sample, and by what the loss of each of its target tokens is multiplied.

    Attributes:
        sample: may have weights of its own, which are multiplied too.
        weight: of the sample as a whole.
    """

    sample: Sample
    weight: float

    @property
    def loss_weights(self) -> np.ndarray:
        """By what the loss of each place's label is multiplied, float32[L]."""
        if self.sample.loss_weights is None:
            return np.full(len(self.sample.labels), self.weight, dtype=np.float32)
        return self.sample.loss_weights * np.float32(self.weight)


def weigh(rows: Sequence[Row], targets: np.ndarray, loss_per: LossPer) -> list[WeightedRow]:
    """Weigh the samples of one global batch so that the weighted sum of all their token losses is the batch's loss.

    Args:
        rows: all rows of the global batch, those of all ranks and accumulated batches.
        targets: int64[samples], target tokens of every sample that a row may name.
        loss_per: "token" takes the mean over all target tokens of the global batch, "sample" the mean over its samples
            of each one's mean; samples without targets count for nothing. A target counts once in either mean, however
            much its turn weighs: a weight of 2 doubles what the turn adds to the loss, and a weight of 0 takes its
            tokens out of the count.

    Returns:
        Each row with its weights.
    """
    members = [index for row in rows for index in row]
    counts = targets[members]
    if loss_per == "token":
        shares = np.full(len(members), 1 / max(counts.sum(), 1))
    else:
        shares = 1 / (np.maximum(counts, 1) * max(np.count_nonzero(counts), 1))
    weights = iter(shares.tolist())
    return [WeightedRow(tuple(row), tuple(next(weights) for _ in row)) for row in rows]


def taken_over(weight: float, targets: int, new_targets: int) -> float:
    """Weigh a sample that stands in for another one, so that the weights of the global batch stay what they add up to.

    Args:
        weight: of the other one.
        targets: the other one's target tokens, as `weigh` counted them.
        new_targets: those of the sample itself.

    Returns:
        By what the loss of each of its target tokens is multiplied; 0 where the other one has no targets.
    """
    return weight if targets == new_targets else weight * targets / max(new_targets, 1)


def count_targets(labels: np.ndarray) -> int:
    """Count the labels int64[L] of one sample that are asked for; nothing predicts its first token."""
    return int((labels[1:] != IGNORED_LABEL).sum())
