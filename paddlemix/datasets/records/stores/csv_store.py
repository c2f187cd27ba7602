"""Tables as text, `.csv` and `.tsv`, with the names of the columns in the first line, read one row at a time."""

from __future__ import annotations

import csv
import mmap
import os
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import orjson

from paddlemix.conversation import RecordError, RecordId
from paddlemix.datasets.records.json_files import Entry
from paddlemix.datasets.records.json_text.encodings import SAVE_AS, check_encoding, looks_like
from paddlemix.datasets.records.json_text.lines import start_of
from paddlemix.datasets.records.json_text.problems import PYTHON_FORM
from paddlemix.datasets.records.json_text.reading import repeated_key
from paddlemix.datasets.records.stores.stored import StoredFile, StoredRecords, rows_of

DELIMITERS = {".csv": ",", ".tsv": "\t"}
_NAMES = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a bar"}
_HEAD = 1 << 20
# Bytes of a row, image included; the parser has a limit for each cell, which would be 128 KB.
_LONGEST = 1 << 26
_MOST_COLUMNS = 100_000
_IN_PYTHON = re.compile(r"[\[{]\s*[\[{]*\s*'.*'\s*[\]}]*\s*[\]}]\s*", re.DOTALL)


class CsvRecords(StoredRecords):
    """The rows of a table.

    Args:
        stored: the file.
        spans: int64[rows + 1, 3]: where the names of the columns and then each row begin and end, and the number of the
            line.
        delimiter: what separates cells.
    """

    def __init__(self, stored: StoredFile, spans: np.ndarray, delimiter: str) -> None:
        super().__init__(stored)
        self._spans = spans
        self._delimiter = delimiter

    def __len__(self) -> int:
        return len(self._spans) - 1

    def _read(self, file: BinaryIO, rows: list[int]) -> Iterator[Entry]:
        csv.field_size_limit(_LONGEST)
        names = _cells(_text(file, self._spans[0].tolist()), self._delimiter)
        for row, span in zip(rows, rows_of(self._spans[1:], rows), strict=True):
            yield self._record(_text(file, span), span[2], names, self.place(row))

    def _record(self, text: bytes, line: int, names: list[str], source: RecordId) -> Entry:
        try:
            cells = _cells(text, self._delimiter)
        except UnicodeDecodeError:
            return RecordError(source, f"not UTF-8 at line {line}, it looks like {looks_like(text)}; {SAVE_AS}")
        except csv.Error as error:
            return RecordError(
                source, f'line {line} is no row of a table: {error}; expected a cell that holds " to be quoted'
            )
        if len(cells) != len(names):
            return RecordError(
                source,
                f"the row at line {line} has {len(cells)} cells, the first line {len(names)} names; expected as many, "
                f"and cells that hold {_NAMES[self._delimiter]} to be quoted",
            )
        try:
            return {name: _value(cell, name) for name, cell in zip(names, cells, strict=True) if name and cell}
        except ValueError as error:
            return RecordError(source, f"{error} (line {line})")


def index_csv(stored: StoredFile, delimiter: str) -> np.ndarray:
    """Find the rows of a table.

    Args:
        stored: the file.
        delimiter: what separates cells.

    Returns:
        int64[rows + 1, 3], as `CsvRecords` takes them. A quote that is not closed makes one bad row, of one line.

    Raises:
        ValueError: the file as a whole is no table.
    """
    if not stored.size:
        raise ValueError(f"{stored.name}: the file is empty; expected the names of the columns and at least one row")
    with open(stored.plain, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            check_encoding(content[:_HEAD])
            spans = _Rows(content, delimiter).find()
            if not len(spans):
                raise ValueError("the file is empty; expected the names of the columns and at least one row")
            _check_names(_cells(content[spans[0, 0] : spans[0, 1]], delimiter), delimiter)
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{stored.name}: {error}") from error
    if len(spans) < 2:
        raise ValueError(f"{stored.name}: the table has no row below the names of its columns; expected at least one")
    return spans


class _Rows:
    """Walks over the rows of a table, which may hold quoted newlines.

    A row that cannot be read, or that a stray quote has joined with others, ends with its first line, and the walk
    starts anew behind it. The parser gives up at the next quote at the latest, so all walks together are two at most.
    """

    def __init__(self, content: mmap.mmap, delimiter: str) -> None:
        csv.field_size_limit(_LONGEST)
        self._content = content
        self._delimiter = delimiter
        head = content[:_HEAD]
        self._newline = b"\r" if b"\r" in head and b"\n" not in head else b"\n"
        self._place, self._line = start_of(content), 0

    def find(self) -> np.ndarray:
        spans, columns = array("q"), 0
        begin, line = self._place, 1
        while begin < len(self._content):
            for cells in self._rows():
                if not cells:  # a blank line
                    begin, line = self._place, self._line + 1
                    continue
                columns = columns or len(cells)
                if len(cells) != columns and self._line > line:
                    break  # a stray quote has joined rows
                spans.extend((begin, self._place, line))
                begin, line = self._place, self._line + 1
            if begin < len(self._content):
                self._place, self._line = begin, line - 1
                next(self._lines())
                spans.extend((begin, self._place, line))
                begin, line = self._place, self._line + 1
        return np.array(spans, dtype=np.int64).reshape(-1, 3)

    def _rows(self) -> Iterator[list[str]]:
        """Yield rows up to one that is malformed."""
        try:
            yield from csv.reader(self._lines(), delimiter=self._delimiter, strict=True)
        except csv.Error:
            return

    def _lines(self) -> Iterator[str]:
        """Yield lines, each byte of them as a character."""
        content, newline = self._content, self._newline
        while self._place < len(content):
            end = content.find(newline, self._place, self._place + _LONGEST) + 1
            if not end and len(content) - self._place > _LONGEST:
                raise ValueError(f"line {self._line + 1} is longer than {_LONGEST >> 20} MiB; expected a table")
            text = content[self._place : end or len(content)]
            self._place += len(text)
            self._line += 1
            yield text.decode("latin-1")


def _check_names(names: list[str], delimiter: str) -> None:
    """Make sure that the first line names columns."""
    if len(names) == 1:
        other = next((character for character in _NAMES if character != delimiter and character in names[0]), None)
        if other:
            raise ValueError(
                f"the first line, {names[0][:80]!r}, seems to separate cells by {_NAMES[other]}; expected "
                f"{_NAMES[delimiter]}, as the file's ending says"
            )
    if len(names) > _MOST_COLUMNS:
        raise ValueError(f"the first line names {len(names):,} columns; expected at most {_MOST_COLUMNS:,}")
    repeated = sorted(name for name, count in Counter(names).items() if name and count > 1)
    if repeated or not any(names):
        problem = f"column `{repeated[0]}` comes twice in" if repeated else "no column is named in"
        raise ValueError(f"{problem} the first line; expected a name for each column")


def _text(file: BinaryIO, span: list[int]) -> bytes:
    return os.pread(file.fileno(), span[1] - span[0], span[0])


def _cells(text: bytes, delimiter: str) -> list[str]:
    (row,) = csv.reader([text.decode()], delimiter=delimiter, strict=True)
    return row


def _value(cell: str, name: str) -> Any:
    """Read a cell: a list or an object where it is one of JSON, else text."""
    if cell[0] not in "[{":
        return cell
    try:
        value = orjson.loads(cell)
    except orjson.JSONDecodeError:
        if _IN_PYTHON.fullmatch(cell):
            raise ValueError(f"`{name}` is {PYTHON_FORM}") from None
        return cell
    key = repeated_key(cell.encode(), value)
    if key is not None:
        raise ValueError(f"key `{key}` comes twice in an object of `{name}`; leave one of the two out")
    return value
