"""Samples of different lengths into one batch: padded, or concatenated into a pack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from paddlemix.contract import Sample
from paddlemix.datasets.half import rounded
from paddlemix.datasets.mixing.loss_weights import WeightedSample
from paddlemix.handover import with_layout
from paddlemix.names import IGNORED_LABEL, PIXEL_INPUTS

PADDING_POSITION = 1

Batch = dict[str, np.ndarray]

Side = Literal["left", "right"]


@dataclass(frozen=True)
class PadCollator:
    """Pads to the longest sample of a batch.

    Attributes:
        pad_token_id: fills `input_ids`.
        side: where padding goes; "left" for generation, so that every row ends with its last token.
    """

    pad_token_id: int
    side: Side = "right"

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """Make a batch.

        Args:
            samples: at least one.

        Returns:
            input_ids and labels int64[B, L]; position_ids int64[3, B, L] where samples have them; with padding on the
            left attention_mask int64[B, L]; and each input of `Sample.media`, concatenated along axis 0 row by row.
        """
        batch = {
            "input_ids": self.padded([sample.input_ids for sample in samples], filler=self.pad_token_id),
            "labels": self.padded([sample.labels for sample in samples], filler=IGNORED_LABEL),
        }
        positions = [sample.position_ids for sample in samples if sample.position_ids is not None]
        if positions:
            batch["position_ids"] = self.padded(positions, filler=PADDING_POSITION).transpose(1, 0, 2)
        if self.side == "left":
            # On the right no token ever sees the padding after it, so causality alone masks it, and faster.
            batch["attention_mask"] = self.padded([np.ones_like(sample.input_ids) for sample in samples], filler=0)
        return batch | _media(samples)

    def padded(self, rows: list[np.ndarray], *, filler: int) -> np.ndarray:
        """Pad the last axis of rows of one dtype to the longest.

        Args:
            rows: [..., l] each, l of its own.
            filler: stands where a row has nothing.

        Returns:
            [B, ..., L] of the rows' dtype.
        """
        length = max(row.shape[-1] for row in rows)
        padded = np.full((len(rows), *rows[0].shape[:-1], length), filler, dtype=rows[0].dtype)
        for target, row in zip(padded, rows, strict=True):
            place = slice(length - row.shape[-1], length) if self.side == "left" else slice(0, row.shape[-1])
            target[..., place] = row
        return padded


@dataclass(frozen=True)
class PackCollator:
    """Concatenates samples in the one row of a batch; nothing is padded."""

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """Make a batch.

        Args:
            samples: at least one.

        Returns:
            input_ids and labels int64[1, N], position_ids int64[3, 1, N] or int64[1, N], each sample's own, and
            cu_seqlens int32[n + 1], where the samples begin and end. The first token of a sample is no label: what
            would predict it is the sample before. Images and videos as of `PadCollator`.
        """
        lengths = [len(sample.input_ids) for sample in samples]
        starts = np.cumsum([0, *lengths], dtype=np.int32)
        labels = np.concatenate([sample.labels for sample in samples])
        labels[starts[:-1]] = IGNORED_LABEL
        return {
            "input_ids": np.concatenate([sample.input_ids for sample in samples])[None],
            "labels": labels[None],
            "position_ids": np.concatenate([_positions(sample) for sample in samples], axis=-1)[..., None, :],
            "cu_seqlens": starts,
        } | _media(samples)


@dataclass(frozen=True)
class TrainingCollator:
    """Batches of drawn rows, with the weight of each place's label.

    Attributes:
        pad_token_id: fills the ends of rows.
        packs: concatenate the samples of all rows; else every row is one sample, and padded.
        pixel_dtype: in which the model computes with pixels: "float32", "bfloat16" or "float16".
        lay_out: finds out what the model must know of a batch, `lay_out` of its class; None leaves it to the model.
    """

    pad_token_id: int
    packs: bool = False
    pixel_dtype: str = "float32"
    lay_out: Callable[[Batch], Batch] | None = None

    def __call__(self, rows: Sequence[Sequence[WeightedSample]]) -> Batch:
        """Make a batch.

        Args:
            rows: at least one.

        Returns:
            What `PackCollator` or `PadCollator` give, with pixels in the dtype that is asked for; loss_weights float32
            of the shape of `labels`: the sample's weight times that of the turn; and what `lay_out` finds.
        """
        drawn = [one for row in rows for one in row]
        samples = [one.sample for one in drawn]
        padder = PadCollator(self.pad_token_id)
        batch = PackCollator()(samples) if self.packs else padder(samples)
        weights = [one.loss_weights for one in drawn]
        batch["loss_weights"] = np.concatenate(weights)[None] if self.packs else padder.padded(weights, filler=0)
        batch |= {name: rounded(batch[name], self.pixel_dtype) for name in PIXEL_INPUTS if name in batch}
        return batch if self.lay_out is None else with_layout(batch, self.lay_out(batch))


def _positions(sample: Sample) -> np.ndarray:
    """Return positions int64[3, L], or int64[L] for a model that counts places by itself: in a pack it cannot."""
    return np.arange(len(sample.input_ids)) if sample.position_ids is None else sample.position_ids


def _media(samples: Sequence[Sample]) -> Batch:
    """Concatenate what the samples show, input by input, along axis 0; nothing where they show nothing."""
    names = dict.fromkeys(name for sample in samples for name in sample.media)
    return {name: np.concatenate([sample.media[name] for sample in samples if name in sample.media]) for name in names}
