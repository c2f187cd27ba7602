"""JSON files that hold a list, a record a line, or one record after the other, read one record at a time."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import orjson

from paddlemix.conversation import RecordError
from paddlemix.datasets.records.json_files import Entry
from paddlemix.datasets.records.json_text.lines import start_of
from paddlemix.datasets.records.json_text.problems import Start, problem_of
from paddlemix.datasets.records.json_text.reading import LONGEST, read_record, repeated_key
from paddlemix.datasets.records.json_text.shape import index_records
from paddlemix.datasets.records.stores.stored import CHANGED, StoredFile, StoredRecords, rows_of

# Bytes that are looked at for the beginning of a line.
_LOOKED_BACK = 1 << 16


class RecordFile(StoredRecords):
    """The records of a JSON file.

    Args:
        stored: the file.
        spans: int64[records, 3], as `index_records` gives them.
    """

    def __init__(self, stored: StoredFile, spans: np.ndarray) -> None:
        super().__init__(stored)
        self._spans = spans

    def __len__(self) -> int:
        return len(self._spans)

    def _read(self, file: BinaryIO, rows: list[int]) -> Iterator[Entry]:
        descriptor = file.fileno()
        for row, (begin, end, line) in zip(rows, rows_of(self._spans, rows), strict=True):
            source = self.place(row)
            if end - begin > LONGEST:
                yield RecordError(source, f"the record takes {end - begin:,} bytes; expected at most {LONGEST:,}")
                continue
            text = os.pread(descriptor, end - begin, begin)
            try:
                yield read_record(text, source)
            except orjson.JSONDecodeError as error:
                problem = problem_of(error, text, _start(descriptor, begin, line)) if line else CHANGED
                yield RecordError(source, problem)


def index_json(stored: StoredFile, *, has_lines: bool) -> np.ndarray:
    """Find the records of a JSON file.

    Args:
        stored: the file.
        has_lines: whether its name says that it has a record a line.

    Returns:
        int64[records, 3], as `index_records` gives them; empty where the file is one object.

    Raises:
        ValueError: the file as a whole holds no records.
    """
    if not stored.size:
        raise ValueError(f"{stored.name}: the file is empty; expected at least one record")
    with open(stored.plain, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            spans = index_records(content, has_lines=has_lines)
        except ValueError as error:
            raise ValueError(f"{stored.name}: {error}") from error
        zero = content.find(b"\0") if spans is None else -1
    if spans is not None:
        return spans
    if zero >= 0:  # as in a file with holes, which may be far larger than the disk, and is not read into memory
        raise ValueError(f"{stored.name}: malformed JSON at byte {zero + 1}: it is zero, as where a copy broke off")
    read_object(stored, check=True)
    return np.empty((0, 3), dtype=np.int64)


def read_object(stored: StoredFile, *, check: bool = False) -> dict:
    """Read a JSON file that is one object.

    Args:
        stored: the file.
        check: whether to look for repeated keys.

    Returns:
        The object.

    Raises:
        ValueError: it is no JSON, or an object in it has a key twice.
    """
    content = stored.plain.read_bytes()
    text = content[start_of(content) :]
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{stored.name}: {problem_of(error, text, Start())}") from error
    assert isinstance(document, dict), f"{stored.name} was indexed as one object"
    key = repeated_key(text, document) if check else None
    if key is not None:
        raise ValueError(f"{stored.name}: key `{key}` comes twice in one object; leave one of the two out")
    return document


def _start(descriptor: int, begin: int, line: int) -> Start:
    """Find what stands before a record in its line."""
    looked_back = min(begin, _LOOKED_BACK)
    before = os.pread(descriptor, looked_back, begin - looked_back)
    newline = max(before.rfind(b"\n"), before.rfind(b"\r"))
    if newline >= 0:
        return Start(line, before[newline + 1 :], begin)
    return Start(line, before[start_of(before) :] if looked_back == begin else None, begin)
