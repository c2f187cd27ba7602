"""A tensor of which ranks that share every layer each saved a part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paddlemix.weights.published import read_whole
from paddlemix.weights.stored_tensor import EVERYTHING, Source, StoredTensor


@dataclass(frozen=True)
class JoinedTensor:
    """The parts of a tensor one behind the other along an axis; reads like a `StoredTensor`.

    Attributes:
        parts: in the order of ranks, all of one shape.
        axis: along which they were cut.
        blocks: how many are concatenated along it and were each cut, 3 where query, key and value are one matrix.
    """

    parts: tuple[StoredTensor, ...]
    axis: int
    blocks: int

    @property
    def name(self) -> str:
        """What errors call it."""
        return self.parts[0].name

    @property
    def file(self) -> Path:
        """Where its first part lies."""
        return self.parts[0].file

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole."""
        shape = list(self.parts[0].shape)
        shape[self.axis] *= len(self.parts)
        return tuple(shape)

    @property
    def dtype(self) -> str:
        """Of the numbers."""
        return self.parts[0].dtype

    @property
    def in_paddles_order(self) -> bool:
        """Whether a linear layer's weight is [in, out]."""
        return self.parts[0].in_paddles_order

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Rows and columns: the first axis and all others; a vector is one row."""
        rows = self.shape[0] if len(self.shape) > 1 else 1
        return rows, math.prod(self.shape) // max(rows, 1)

    def read_into(self, target: np.ndarray, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> None:
        """Copy the numbers, converted to `target`'s dtype; all parts are held beside it."""
        cut = [np.split(read_whole(part, part.dtype), self.blocks, axis=self.axis) for part in self.parts]
        whole = np.concatenate([part[block] for block in range(self.blocks) for part in cut], axis=self.axis)
        target[...] = whole.reshape(self.matrix_shape)[rows, columns].astype(target.dtype, copy=False)


def join(parts: Sequence[StoredTensor], wanted: Sequence[int], blocks: int) -> Source:
    """Put together what ranks saved of a tensor; the whole's shape says how it was cut.

    Args:
        parts: in the order of ranks.
        wanted: the shape of the whole, in the files' order of axes.
        blocks: how many lie side by side along the last axis and are each cut, see `JoinedTensor`.

    Returns:
        The whole; the first part alone where all ranks have the whole, or where the parts do not add up to it.
    """
    first, ranks = parts[0].shape, len(parts)
    if ranks == 1 or list(first) == list(wanted) or any(part.shape != first for part in parts):
        return parts[0]
    for axis in range(len(first)):
        cut = [size * (ranks if index == axis else 1) for index, size in enumerate(first)]
        if cut == list(wanted):
            is_last = axis == len(first) - 1
            return JoinedTensor(tuple(parts), axis, blocks if is_last else 1)
    return parts[0]
