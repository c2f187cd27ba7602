"""A tensor as it lies in a file, read block by block to where it is wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import Protocol

import numpy as np

from paddlemix.files import open_regular
from paddlemix.printable import brief
from paddlemix.weights.dtypes import STORED_DTYPES

# What a file may say of a tensor, and how many it may hold: beyond what any model has, and cheap to carry on.
LONGEST_NAME = 512  # characters
MOST_AXES = 8
MOST_NUMBERS = 1 << 48
MOST_TENSORS = 1 << 16

# Most matrices change places of rows and columns on their way. Blocks that stay in a core's cache do that 2.5 times as
# fast as whole matrices: of 8960 x 1536 bfloat16 numbers to float32 64 rows took 18 ms, 1024 rows 40, all of them 49.
ROWS_AT_ONCE = 64
# Of narrow matrices, such as codes [n, 1], a block has more rows: a call for each 64 of them would take most of the
# time.
_LEAST_BLOCK = 1 << 16  # bytes
EVERYTHING = slice(None)


class Source(Protocol):
    """What a parameter can be read from: a `StoredTensor`, or whatever is put together from several of them."""

    @property
    def name(self) -> str:
        """What errors call it."""
        ...

    @property
    def file(self) -> Path:
        """Where it lies, or its first part."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """In the file's order of axes."""
        ...

    @property
    def dtype(self) -> str:
        """A key of `STORED_DTYPES`, or what the file calls another kind of numbers."""
        ...

    @property
    def in_paddles_order(self) -> bool:
        """Whether a linear layer's weight is [in, out], as Paddle keeps it, not [out, in]."""
        ...

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Rows and columns: the first axis and all others; a vector is one row."""
        ...

    def read_into(self, target: np.ndarray, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> None:
        """Copy the numbers, converted to `target`'s dtype; see `StoredTensor.read_into`."""
        ...


@dataclass(frozen=True)
class StoredTensor:
    """Where a file holds a tensor: its numbers lie in C order unless it says so, little-endian, uncompressed.

    Attributes:
        name: in the file.
        file: the file.
        offset: bytes before its first number.
        shape: in the file.
        dtype: a key of `STORED_DTYPES`, or what the file calls another kind of numbers.
        in_paddles_order: whether a linear layer's weight is [in, out], as Paddle keeps it, not [out, in].
        by_columns: whether the numbers of a matrix lie column by column, as those of a transposed one do.

    Raises:
        ValueError: its name or its shape is none of a model's.
    """

    name: str
    file: Path
    offset: int
    shape: tuple[int, ...]
    dtype: str
    in_paddles_order: bool = False
    by_columns: bool = False

    def __post_init__(self) -> None:
        if len(self.name) > LONGEST_NAME or not self.name.isprintable():
            raise ValueError(f"{self.file}: {brief(self.name)!r} is no name of a tensor; fetch it again.")
        if len(self.shape) > MOST_AXES or math.prod(size or 1 for size in self.shape) >= MOST_NUMBERS:
            raise ValueError(
                f"{self.file}: {brief(self.name)} has more than {MOST_AXES} axes, or more numbers than any model has; "
                "fetch it again."
            )

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Rows and columns: the first axis and all others; a vector is one row."""
        rows = self.shape[0] if len(self.shape) > 1 else 1
        return rows, math.prod(self.shape) // max(rows, 1)

    def read_into(self, target: np.ndarray, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> None:
        """Copy the numbers, converted to `target`'s dtype; no more than a block is held beside it.

        Args:
            target: [rows, columns] as `matrix_shape` has them, or as many as are asked for; with any strides.
            rows: to copy; a range without steps.
            columns: to copy, likewise; nothing else of a row is read.

        Raises:
            ValueError: the file ends too early, is no regular file any more, or holds numbers of an unknown kind.
        """
        if self.dtype not in STORED_DTYPES:
            raise ValueError(
                f"{self.file}: {brief(self.name)} is of {self.dtype}; expected {', '.join(STORED_DTYPES)}. Save it "
                "as one of them."
            )
        if 0 in self.shape:  # of the other axis there may be billions
            return
        if self.by_columns:
            transposed = replace(self, shape=self.shape[::-1], by_columns=False)
            transposed.read_into(target.T, rows=columns, columns=rows)
            return
        first, end, _ = rows.indices(self.matrix_shape[0])
        left, right, _ = columns.indices(self.matrix_shape[1])
        dtype = STORED_DTYPES[self.dtype]
        at_once = max(ROWS_AT_ONCE, _LEAST_BLOCK // max((right - left) * dtype.itemsize, 1))
        block = np.empty([min(end - first, at_once), right - left], dtype)
        with open_regular(self.file) as opened:
            for start in range(first, end, at_once):
                part = block[: end - start]
                self._read_block(opened, part, start, left)
                target[start - first : start - first + len(part)] = part.astype(target.dtype, copy=False)

    def _read_block(self, opened: BufferedReader, block: np.ndarray, row: int, column: int) -> None:
        """Fill a block from that place on: whole rows at once, parts of rows one by one."""
        width = self.matrix_shape[1]
        for index, piece in enumerate([block] if block.shape[1] == width else block):
            opened.seek(self.offset + ((row + index) * width + column) * block.itemsize)
            if opened.readinto(piece.view(np.uint8)) != piece.nbytes:
                raise ValueError(f"{self.file}: ends within {brief(self.name)}; fetch it again.")


def same_numbers(one: Source, other: Source) -> bool:
    """Tell whether two stored tensors hold the same numbers.

    Args:
        one: a tensor.
        other: another one; of several names for one place nothing is read.

    Returns:
        False also where their shapes differ.
    """
    if isinstance(one, StoredTensor) and isinstance(other, StoredTensor) and one == replace(other, name=one.name):
        return True
    if tuple(one.shape) != tuple(other.shape):
        return False
    rows, columns = one.matrix_shape
    first, second = (np.empty([min(rows, ROWS_AT_ONCE), columns], np.float32) for _ in range(2))
    for start in range(0, rows, ROWS_AT_ONCE):
        part = slice(start, min(start + ROWS_AT_ONCE, rows))
        found, wanted = first[: part.stop - start], second[: part.stop - start]
        one.read_into(found, rows=part)
        other.read_into(wanted, rows=part)
        if not np.array_equal(found, wanted):
            return False
    return True
