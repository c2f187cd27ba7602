"""How training and evaluation draw from a data set, from the config's keys to samplers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paddlemix.datasets.mix_dataset import MixDataset
from paddlemix.datasets.mixing.loss_weights import LossPer
from paddlemix.datasets.mixing.packs import DEFAULT_WINDOW, PackPlanner
from paddlemix.datasets.mixing.rows import PackedRows, Row, RowPlan, SingleRows
from paddlemix.datasets.mixing.sampler import BatchShape, GlobalBatchSampler, WholeSetSampler


@dataclass(frozen=True)
class Batching:
    """What a row is, in which order rows come and what the loss is a mean of.

    Attributes:
        pack_tokens: tokens of a pack; None puts one sample into each row and pads.
        window: see `PackPlanner`.
        group_by_length: batch samples of about the same length, where rows are padded.
        loss_per: see `paddlemix.datasets.mixing.loss_weights.weigh`.
    """

    pack_tokens: int | None = None
    window: int = DEFAULT_WINDOW
    group_by_length: bool = False
    loss_per: LossPer = "token"

    @property
    def packs(self) -> bool:
        """Whether rows are packs."""
        return self.pack_tokens is not None

    def training(
        self, dataset: MixDataset, shape: BatchShape, *, seed: int, drop_last: bool = False
    ) -> GlobalBatchSampler:
        """Draw every sample of a set once an epoch, in the order of its mixture or, in packs, roughly so.

        Args:
            dataset: the set.
            shape: of the batches.
            seed: of the order.
            drop_last: leave out a last smaller global batch.

        Returns:
            The sampler.
        """
        plan = self._plan(dataset, shape, seed)
        return GlobalBatchSampler(dataset, plan, _targets(dataset), shape, loss_per=self.loss_per, drop_last=drop_last)

    def evaluation(
        self, dataset: MixDataset, shape: BatchShape, *, max_batches: int = 0, chosen: np.ndarray | None = None
    ) -> WholeSetSampler:
        """Draw every sample of a set once, in its order; packs are those of one fixed plan.

        Args:
            dataset: the set.
            shape: of the batches.
            max_batches: batches of each rank to stop after; 0 takes all.
            chosen: int64[n], the samples to draw, in their order; None draws all.

        Returns:
            The sampler.
        """
        order = np.arange(len(dataset)) if chosen is None else chosen
        rows: Sequence[Row] = [[index] for index in order.tolist()]
        if self.pack_tokens is not None:
            planner = PackPlanner(self.pack_tokens, self.window)
            rows = planner.plan(order, _lengths(dataset), np.random.default_rng(0))
        return WholeSetSampler(rows, _targets(dataset), shape, max_batches=max_batches)

    def _plan(self, dataset: MixDataset, shape: BatchShape, seed: int) -> RowPlan:
        lengths, order, in_order = _lengths(dataset), dataset.mixture.order, not dataset.mixture.shuffle
        if self.pack_tokens is not None:
            return PackedRows(lengths, order, seed, PackPlanner(self.pack_tokens, self.window), in_order=in_order)
        return SingleRows(lengths, order, seed, grouped=shape.wide if self.group_by_length else 1, in_order=in_order)


def _lengths(dataset: MixDataset) -> np.ndarray:
    return dataset.sizes.column("tokens")


def _targets(dataset: MixDataset) -> np.ndarray:
    return dataset.sizes.column("target_tokens")
