"""What records cost, a few bytes each however many there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import overload

import numpy as np

from paddlemix.contract import SampleSize

COLUMNS = tuple(field.name for field in fields(SampleSize))
# Stands in every column of a record that was found bad.
UNUSABLE = -1
# Not `astuple`, which copies every number: a tenth of what measuring a short text takes.
_numbers_of = attrgetter(*COLUMNS)


class SizeTable(Sequence[SampleSize]):
    """Sizes as columns of one array.

    Args:
        table: int32[records, columns of `SampleSize`].
    """

    def __init__(self, table: np.ndarray) -> None:
        self.table = table

    @classmethod
    def of(cls, sizes: Iterable[SampleSize | None]) -> SizeTable:
        """Make the table of sizes; None marks a record that has none."""
        rows = [[UNUSABLE] * len(COLUMNS) if size is None else _numbers_of(size) for size in sizes]
        return cls(np.array(rows, dtype=np.int32).reshape(-1, len(COLUMNS)))

    def column(self, name: str) -> np.ndarray:
        """Return one of `SampleSize`'s numbers for every record, int64[records]."""
        return self.table[:, COLUMNS.index(name)].astype(np.int64)

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, index: int) -> SampleSize: ...

    @overload
    def __getitem__(self, index: slice) -> SizeTable: ...

    def __getitem__(self, index: int | slice) -> SampleSize | SizeTable:
        if isinstance(index, slice):
            return SizeTable(self.table[index])
        return SampleSize(*self.table[index].tolist())
