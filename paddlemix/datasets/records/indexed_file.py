"""Record files that are read one record at a time: an index of offsets is kept, the records stay on disk."""

from __future__ import annotations

import gzip
import mmap
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import orjson

from paddlemix.cache import cache_folder, digest_of, identity, kept, only_one
from paddlemix.conversation import RecordError, RecordId
from paddlemix.datasets.records.index import index_lines, index_list
from paddlemix.datasets.records.json_files import (
    GZIP_SUFFIX,
    Entry,
    Located,
    Record,
    as_record,
    checked_file,
    kind_of,
    malformed,
    read_records,
)
from paddlemix.files import replacing

# Raise it where an index comes to mean something else.
_VERSION = 1


class Records(Protocol):
    """Records that need not be in memory."""

    def __len__(self) -> int: ...

    def located(self, rows: Iterable[int]) -> Iterator[Located]:
        """Read each of the records, or why there is none, and its place."""
        ...

    @property
    def identity(self) -> str:
        """A text that other contents would not have."""
        ...


class RecordFile:
    """The records of a `.jsonl` file, or of a `.json` file that is one list.

    Args:
        name: the file, as errors name it.
        plain: the same, not compressed.
        spans: int64[records, 2 or 3]: where each record begins and ends, and the number of its line in a `.jsonl`.
        identity: of the contents.
    """

    def __init__(self, name: str, plain: Path, spans: np.ndarray, identity: str) -> None:
        self.name = name
        self.identity = identity
        self._plain = plain
        self._spans = spans

    def __len__(self) -> int:
        return len(self._spans)

    def __iter__(self) -> Iterator[Entry]:
        return (entry for entry, _ in self.located(range(len(self))))

    def located(self, rows: Iterable[int]) -> Iterator[Located]:
        """Read some of the records.

        Args:
            rows: which of them.

        Yields:
            Each record, or why it is none, and its place.
        """
        with open(self._plain, "rb") as file:
            for row in rows:
                begin, end, *line = self._spans[row].tolist()
                source = RecordId(self.name, int(row))
                yield self._entry(os.pread(file.fileno(), end - begin, begin), line, source), source

    def _entry(self, text: bytes, line: list[int], source: RecordId) -> Entry:
        try:
            return as_record(orjson.loads(text), source)
        except orjson.JSONDecodeError as error:
            if line:
                return RecordError(source, malformed(error, text, first_line=line[0]))
            return RecordError(source, "the file has changed since it was indexed; start again")


class ExpandedRecords:
    """Records that a format made of whole files, such as COCO's tables, written down one to a line.

    Args:
        path: one record a line, or as a text why there is none.
        places: int64[records, 4]: where each line begins and ends, the number of the file its record is named after,
            and its index there.
        files: these files.
        identity: of their contents.
    """

    def __init__(self, path: Path, places: np.ndarray, files: Sequence[str], identity: str) -> None:
        self.identity = identity
        self._path = path
        self._places = places
        self._files = files

    def __len__(self) -> int:
        return len(self._places)

    def located(self, rows: Iterable[int]) -> Iterator[Located]:
        """Read some of the records; see `RecordFile.located`."""
        with open(self._path, "rb") as lines:
            for row in rows:
                begin, end, file, index = self._places[row].tolist()
                source = RecordId(self._files[file], index)
                entry = orjson.loads(os.pread(lines.fileno(), end - begin, begin))
                yield RecordError(source, entry) if isinstance(entry, str) else entry, source


def open_records(path: str) -> RecordFile | Record:
    """Open a record file; what was indexed once is found at the next start.

    Args:
        path: a `.json` or `.jsonl` file, as `read_records` takes it.

    Returns:
        Its records, or the object that it consists of.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as `read_records`.
    """
    file, content = checked_file(path), identity(path)
    plain, kind = _unpacked(file, content), kind_of(file)
    kept_at = cache_folder("index") / f"{digest_of(_VERSION, kind, content)}.npy"
    spans = kept(kept_at, lambda: _index(plain, kind, path))
    if not len(spans):
        document = read_records(path)
        assert isinstance(document, dict), f"{path} holds a list, but was not indexed as one"
        return document
    return RecordFile(path, plain, spans, content)


def expanded(
    expand: Callable[[], Iterable[Located]], files: Sequence[str], name: str, depends_on: Sequence[str]
) -> ExpandedRecords:
    """Write down what a format makes of whole files; a later start finds it.

    Args:
        expand: makes the records.
        files: the files that they are named after.
        name: the format's.
        depends_on: what else decides on them, the contents of the files above all.

    Returns:
        The records.
    """
    content = digest_of(_VERSION, name, *files, *depends_on)
    path = cache_folder("expanded") / f"{content}.jsonl"
    places = kept(path.with_suffix(".npy"), lambda: _write(expand(), files, path))
    return ExpandedRecords(path, places, files, content)


def _unpacked(file: Path, content: str) -> Path:
    """Return the file itself, or what a gzipped one holds, kept in the cache: only there a record can be read alone."""
    if file.suffix != GZIP_SUFFIX:
        return file
    unpacked = cache_folder("unpacked") / f"{digest_of(content)}{kind_of(file)}"
    with only_one(unpacked.with_suffix(".lock")):
        if not unpacked.is_file():
            try:
                with replacing(unpacked) as beside, gzip.open(file) as packed, open(beside, "wb") as plain:
                    shutil.copyfileobj(packed, plain, 1 << 20)
            except (OSError, EOFError, zlib.error):
                read_records(file)  # says what is wrong with it
                raise
    return unpacked


def _write(records: Iterable[Located], files: Sequence[str], path: Path) -> np.ndarray:
    number = {file: place for place, file in enumerate(files)}
    places, end = [], 0
    with replacing(path) as beside, open(beside, "wb") as file:
        for entry, source in records:
            line = orjson.dumps(entry.problem if isinstance(entry, RecordError) else entry)
            places.append((end, end + len(line), number[source.file], source.index))
            end += file.write(line + b"\n")
    return np.array(places, dtype=np.int64).reshape(-1, 4)


def _index(plain: Path, kind: str, path: str) -> np.ndarray:
    """Find the spans of the records, none for a file that is one object; ValueError where it is neither."""
    if not plain.stat().st_size:
        read_records(path)  # says that it is empty
    with open(plain, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        spans = index_lines(content) if kind == ".jsonl" else index_list(content)
    if spans is None or not len(spans):
        document = read_records(path)  # says what is wrong, where it is not one object
        assert isinstance(document, dict), f"{path}: no record was found in {len(document)}"
        return np.empty((0, 2), dtype=np.int64)
    return spans
