"""Parquet files, read one record at a time; of the file, a stretch of rows at once is in memory."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from paddlemix.conversation import RecordError
from paddlemix.datasets.records.json_files import Entry
from paddlemix.datasets.records.json_text.reading import LONGEST
from paddlemix.datasets.records.stores.plain_values import plain
from paddlemix.datasets.records.stores.stored import StoredFile, StoredRecords

# A row group that is no larger is decoded as a whole; of others, so many bytes at once.
_KEPT_BYTES = 1 << 28
# Rows that are all alike take next to no room; records are not.
_MOST_ROWS_A_BYTE = 64
# As of gzipped files: records do not shrink to less.
_MOST_TIMES, _ALWAYS_ALLOWED = 200, 1 << 25
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
_SHOWN_CHARACTERS = 200
_INDEX_COLUMN = "__index_level_"


@dataclass
class _Cursor:
    """Where in a file a thread reads.

    Attributes:
        stored: the file.
        group: the row group.
        batches: of the group, those not read yet.
        batch: the last that was read.
        has_large: whether it may have a record that is too long.
        first: the number of its first row in the group.
    """

    stored: StoredFile
    group: int
    batches: Iterator[Any]
    batch: Any = None
    has_large: bool = False
    first: int = 0

    def take(self, batch: Any) -> None:
        """Go on to another batch."""
        self.batch = batch
        self.has_large = batch is not None and _written_out(batch.columns) > LONGEST


# One for each thread, so that however many files a set has, one stretch of one of them is in memory.
_local = threading.local()


class ParquetRecords(StoredRecords):
    """The rows of a Parquet file.

    Args:
        stored: the file.
        unpack_limit: bytes that its columns may hold; None means 200 times its size, and 32 MiB in any case.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: it is no Parquet file, broken, has no rows, or says that it holds far more than records would.
    """

    def __init__(self, stored: StoredFile, unpack_limit: int | None = None) -> None:
        super().__init__(stored)
        parquet = _parquet()
        try:
            with parquet.ParquetFile(stored.plain) as file:
                groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
                sizes = [(group.num_rows, group.total_byte_size) for group in groups]
                columns = [group.column(number) for group in groups for number in range(group.num_columns)]
                repeated = [name for name, count in Counter(file.schema_arrow.names).items() if count > 1]
                held = sum(map(_held_bytes, columns))
                self._repeating = sorted({column.path_in_schema for column in columns if _may_repeat(column)})
        except _errors() as error:
            raise ValueError(f"{stored.name}: the file is no Parquet file, or broken: {_words(error)}") from error
        rows, self._bytes = np.array(sizes, dtype=np.int64).reshape(-1, 2).T
        self._starts = np.cumsum([0, *rows.tolist()])
        if (rows < 0).any() or not 0 < len(self) <= _MOST_ROWS_A_BYTE * stored.size:
            raise ValueError(
                f"{stored.name}: the file says that it has {len(self):,} rows; expected at least one record"
            )
        if held > (unpack_limit or max(_MOST_TIMES * stored.size, _ALWAYS_ALLOWED)):
            raise ValueError(
                f"{stored.name}: the file says that it holds {held:,} bytes, "
                + (f"more than {unpack_limit:,}" if unpack_limit else f"more than {_MOST_TIMES} times its size")
                + "; set `unpack_limit` of the set if it is to be read"
            )
        if repeated:
            raise ValueError(f"{stored.name}: column `{repeated[0]}` comes twice; expected a name for each column")

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _read(self, file: BinaryIO, rows: list[int]) -> Iterator[Entry]:
        del file  # pyarrow opens it by its name
        for row in rows:
            try:
                yield self._record(row)
            except _errors() as error:
                yield RecordError(self.place(row), _words(error))

    def _record(self, row: int) -> Entry:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        place = row - int(self._starts[group])
        cursor = self._cursor(group, place)
        while place >= cursor.first + cursor.batch.num_rows:
            cursor.first += cursor.batch.num_rows
            cursor.take(next(cursor.batches, None))
            if cursor.batch is None:
                del _local.cursor
                raise ValueError("the file is broken: a row group has fewer rows than it says")
        one = cursor.batch.slice(place - cursor.first, 1)
        if self._repeating and cursor.has_large and (size := _written_out(one.columns)) > LONGEST:
            raise ValueError(f"the record takes {size:,} bytes; expected at most {LONGEST:,}")
        try:
            (record,) = one.to_pylist()
        except UnicodeDecodeError as error:
            raise ValueError(_no_text(one)) from error
        return {
            name: plain(value, name)
            for name, value in record.items()
            if value is not None and not name.startswith(_INDEX_COLUMN)
        }

    def _cursor(self, group: int, place: int) -> _Cursor:
        cursor = getattr(_local, "cursor", None)
        if cursor and (cursor.stored, cursor.group) == (self._stored, group) and cursor.first <= place:
            return cursor
        _local.cursor = None  # what was decoded is let go of before more is
        rows = int(self._starts[group + 1] - self._starts[group])
        together = rows if self._bytes[group] <= _KEPT_BYTES else max(rows * _KEPT_BYTES // int(self._bytes[group]), 1)
        file = _parquet().ParquetFile(self._stored.plain, read_dictionary=self._repeating)
        batches = file.iter_batches(together, row_groups=[group], use_threads=False)
        first = next(batches, None)
        if first is None:
            raise ValueError("the file is broken: a row group has fewer rows than it says")
        _local.cursor = _Cursor(self._stored, group, batches)
        _local.cursor.take(first)
        return _local.cursor


def _held_bytes(column: Any) -> int:
    """Tell the bytes that a column of a group becomes, as far as its header says; texts are told by their numbers."""
    return max(column.total_uncompressed_size, column.num_values * _WIDTHS.get(column.physical_type, 4))


def _may_repeat(column: Any) -> bool:
    """Tell whether a column may name one long text so often that all of it written out has no room in memory."""
    is_text = column.physical_type == "BYTE_ARRAY" and column.has_dictionary_page
    return is_text and column.num_values * column.total_uncompressed_size > _KEPT_BYTES


def _no_text(row: Any) -> str:
    """Tell which column of a row, of one record, holds a text that is none."""
    for name, column in zip(row.schema.names, row.columns, strict=True):
        try:
            column.to_pylist()
        except UnicodeDecodeError as error:
            return f"column `{name}` is not UTF-8 ({error.reason} at byte {error.start} of a text); write it as UTF-8"
    raise AssertionError("a row that cannot be read has no column that cannot be")


def _written_out(columns: Iterable[Any]) -> int:
    """Count the bytes of texts that are kept once for all places that name them, as if each had its own."""
    from pyarrow import compute, types

    size = 0
    for column in columns:
        kind = column.type
        if types.is_dictionary(kind) and not types.is_primitive(kind.value_type):
            lengths = compute.binary_length(column.dictionary)
            size += compute.sum(compute.take(lengths, column.indices)).as_py() or 0
        elif types.is_nested(kind):
            size += _written_out(column.flatten() if types.is_struct(kind) else [column.flatten()])
    return size


def _parquet() -> Any:
    """Import what reads Parquet, which takes a third of a second, where it is needed."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            'Parquet files are read by pyarrow, which is not installed: pip install "pyarrow<21"'
        ) from error
    return parquet


def _errors() -> tuple[type[Exception], ...]:
    """Name what pyarrow raises of files that are broken, and Python of values that it has no words for."""
    from pyarrow import ArrowException

    return (ArrowException, OSError, ValueError, OverflowError, ArithmeticError, RecursionError, MemoryError)


def _words(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:_SHOWN_CHARACTERS]
