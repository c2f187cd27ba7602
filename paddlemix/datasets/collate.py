"""Samples of different lengths into one padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from paddlemix.processors.interface import IGNORED_LABEL, Sample

PADDING_POSITION = 1

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

    def __call__(self, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        """Make a batch.

        Args:
            samples: at least one.

        Returns:
            input_ids and labels int64[B, L]; position_ids int64[3, B, L] where samples have them; with padding on the
            left attention_mask int64[B, L]; where any sample has a picture pixel_values, float32[patches, values] with
            image_grid_thw int64[pictures, 3] or float32[pictures, 3, S, S], row by row; where any has a video
            pixel_values_videos and video_grid_thw likewise.
        """
        length = max(len(sample.input_ids) for sample in samples)
        batch = {
            "input_ids": self._stack([sample.input_ids for sample in samples], length, self.pad_token_id),
            "labels": self._stack([sample.labels for sample in samples], length, IGNORED_LABEL),
        }
        positions = [sample.position_ids for sample in samples if sample.position_ids is not None]
        if positions:
            batch["position_ids"] = self._stack(positions, length, PADDING_POSITION).transpose(1, 0, 2)
        if self.side == "left":
            # On the right no token ever sees the padding behind it, so causality alone masks it, and faster.
            batch["attention_mask"] = self._stack([np.ones_like(sample.input_ids) for sample in samples], length, 0)
        for name in ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw"):
            present = [array for sample in samples if (array := getattr(sample, name)) is not None]
            if present:
                batch[name] = np.concatenate(present)
        return batch

    def _stack(self, rows: list[np.ndarray], length: int, filler: int) -> np.ndarray:
        """Pad int64[..., l] each to int64[B, ..., length]."""
        padded = np.full((len(rows), *rows[0].shape[:-1], length), filler, dtype=np.int64)
        for target, row in zip(padded, rows, strict=True):
            place = slice(length - row.shape[-1], length) if self.side == "left" else slice(0, row.shape[-1])
            target[..., place] = row
        return padded
