"""What all record files have in common that are read one record at a time."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from paddlemix.cache import identity
from paddlemix.conversation import RecordError, RecordId
from paddlemix.datasets.records.json_files import Entry, Located

# Records asked for together: what is looked up of them is looked up at once.
_TOGETHER = 1024
CHANGED = "the file has changed since it was indexed; start again"


def rows_of(table: np.ndarray, rows: list[int]) -> list[list[int]]:
    """Look up rows of a table; one alone is looked up three times as fast as a list of one."""
    return [table[rows[0]].tolist()] if len(rows) == 1 else table[rows].tolist()


def spans_fit(spans: np.ndarray, *, size: int, least: int = 0) -> bool:
    """Tell whether an array can hold where the records of a file lie.

    Args:
        spans: as it was found; expected int64[n, 3], where each begins and ends in bytes, and a line.
        size: of the file, in bytes.
        least: the least that n is.

    Returns:
        False where it is of another kind, or names places outside of the file.
    """
    if spans.dtype != np.int64 or spans.ndim != 2 or spans.shape[1] != 3 or len(spans) < least:
        return False
    begins, ends = spans[:, 0], spans[:, 1]
    return bool(((begins >= 0) & (begins <= ends) & (ends <= size)).all())


@dataclass(frozen=True)
class StoredFile:
    """A record file as it was when it was opened.

    Attributes:
        name: the file, as errors name it.
        plain: the same, not compressed.
        content: the identity of what it holds.
        size: of `plain`, in bytes.
        changed: when `plain` was last written, in nanoseconds.
    """

    name: str
    plain: Path
    content: str
    size: int
    changed: int

    @classmethod
    def of(cls, name: str, plain: Path) -> StoredFile:
        """Look at a file."""
        status = plain.stat()
        return cls(name, plain, identity(name), status.st_size, status.st_mtime_ns)

    def is_unchanged(self, file: BinaryIO) -> bool:
        """Tell whether an open file is still the one that was looked at."""
        status = os.fstat(file.fileno())
        return status.st_size == self.size and status.st_mtime_ns == self.changed


class StoredRecords(ABC):
    """The records of a file, which stay on disk.

    Args:
        stored: the file.
    """

    def __init__(self, stored: StoredFile) -> None:
        self._stored = stored

    @property
    def identity(self) -> str:
        """A text that other contents would not have."""
        return self._stored.content

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _read(self, file: BinaryIO, rows: list[int]) -> Iterator[Entry]:
        """Read records, each of them or why there is none.

        Args:
            file: the file, open.
            rows: which of them.

        Yields:
            The records.
        """

    def __iter__(self) -> Iterator[Entry]:
        return (entry for entry, _ in self.located(range(len(self))))

    def located(self, rows: Iterable[int]) -> Iterator[Located]:
        """Read some of the records.

        Args:
            rows: which of them.

        Yields:
            Each record, or why it is none, and its place.
        """
        opened = self._open()
        if isinstance(opened, str):
            yield from (self._refused(int(row), opened) for row in rows)
            return
        with opened as file:
            rest = iter(rows)
            while some := [int(row) for row in islice(rest, _TOGETHER)]:
                yield from zip(self._read(file, some), map(self.place, some), strict=True)

    def _open(self) -> BinaryIO | str:
        """Open the file, or say why it is no longer what it was."""
        try:
            file = self._stored.plain.open("rb")
        except OSError as error:
            return f"the file cannot be read: {error.strerror}"
        if self._stored.is_unchanged(file):
            return file
        file.close()
        return CHANGED

    def place(self, row: int) -> RecordId:
        """Name a record."""
        return RecordId(self._stored.name, row)

    def _refused(self, row: int, problem: str) -> Located:
        return RecordError(self.place(row), problem), self.place(row)
