"""Record files that are read one record at a time: an index of offsets is kept, the records stay on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import orjson

from paddlemix.cache import cache_folder, digest_of, identity, kept, passing_folder, warn_of_no_room
from paddlemix.conversation import RecordError, RecordId
from paddlemix.datasets.records.file_names import checked_file, kind_of
from paddlemix.datasets.records.json_files import Located, Record
from paddlemix.datasets.records.stores.csv_store import DELIMITERS, CsvRecords, index_csv
from paddlemix.datasets.records.stores.json_store import RecordFile, index_json, read_object
from paddlemix.datasets.records.stores.parquet_store import ParquetRecords
from paddlemix.datasets.records.stores.stored import StoredFile, StoredRecords, spans_fit
from paddlemix.datasets.records.stores.tar_store import TarRecords, index_tar, members_fit
from paddlemix.datasets.records.unpacking import unpacked
from paddlemix.files import replacing

# Raise it where an index comes to mean something else.
_VERSION = 2


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
                try:
                    entry = orjson.loads(os.pread(lines.fileno(), end - begin, begin))
                except orjson.JSONDecodeError:
                    entry = f"what was made of it, kept in {self._path}, is broken; remove that file"
                yield RecordError(source, entry) if isinstance(entry, str) else entry, source


def open_records(path: str, unpack_limit: int | None = None) -> StoredRecords | Record:
    """Open a record file; what was indexed once is found at the next start.

    Args:
        path: a `.json` file with a list of records, or one object; a `.jsonl` file with a record a line; either may be
            written as the other. A `.csv` or `.tsv` file with a line of names, a `.parquet` file, or a `.tar` file as
            webdataset writes it. Text files may be gzipped.
        unpack_limit: bytes that a gzipped or Parquet file may hold, see `unpacked`.

    Returns:
        Its records, or the object that it consists of.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file as a whole cannot be read.
    """
    file = checked_file(path)
    kind = kind_of(file)
    stored = StoredFile.of(path, unpacked(file, identity(file), unpack_limit))
    if kind == ".parquet":
        return ParquetRecords(stored, unpack_limit)
    spans = kept(
        cache_folder("index") / f"{digest_of(_VERSION, kind, stored.content)}.npy",
        lambda: _index(stored, kind),
        fits=lambda index: _fits(index, kind, stored.size),
    )
    if kind in DELIMITERS:
        return CsvRecords(stored, spans, DELIMITERS[kind])
    if kind == ".tar":
        return TarRecords(stored, spans)
    return RecordFile(stored, spans) if len(spans) else read_object(stored)


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
    try:
        places = kept(path.with_suffix(".npy"), lambda: _write(expand(), files, path), fits=_are_places(path, files))
    except OSError as error:
        warn_of_no_room(path.parent, error)
        path = passing_folder("expanded") / path.name
        places = kept(path.with_suffix(".npy"), lambda: _write(expand(), files, path), fits=_are_places(path, files))
    return ExpandedRecords(path, places, files, content)


def _are_places(path: Path, files: Sequence[str]) -> Callable[[np.ndarray], bool]:
    """Tell by a function whether an array can hold the places of the records in a file, see `ExpandedRecords`."""

    def fits(places: np.ndarray) -> bool:
        if places.dtype != np.int64 or places.ndim != 2 or places.shape[1] != 4:
            return False
        begins, ends, numbers = places[:, 0], places[:, 1], places[:, 2]
        size = path.stat().st_size if path.is_file() else -1
        return (
            size == (int(ends[-1]) + 1 if len(ends) else 0)
            and bool(((begins >= 0) & (begins <= ends) & (ends <= size)).all())
            and bool(((numbers >= 0) & (numbers < len(files))).all())
        )

    return fits


def _write(records: Iterable[Located], files: Sequence[str], path: Path) -> np.ndarray:
    number = {file: place for place, file in enumerate(files)}
    places, end = [], 0
    with replacing(path) as beside, open(beside, "wb") as file:
        for entry, source in records:
            line = orjson.dumps(entry.problem if isinstance(entry, RecordError) else entry)
            places.append((end, end + len(line), number[source.file], source.index))
            end += file.write(line + b"\n")
    return np.array(places, dtype=np.int64).reshape(-1, 4)


def _fits(index: np.ndarray, kind: str, size: int) -> bool:
    """Tell whether an array can be the index of a file of so many bytes."""
    if kind == ".tar":
        return members_fit(index, size=size)
    return spans_fit(index, size=size, least=2 if kind in DELIMITERS else 0)


def _index(stored: StoredFile, kind: str) -> np.ndarray:
    """Find the records of a file; ValueError where there are none, or the file changes meanwhile."""
    if kind in DELIMITERS:
        spans = index_csv(stored, DELIMITERS[kind])
    elif kind == ".tar":
        spans = index_tar(stored)
    else:
        spans = index_json(stored, has_lines=kind == ".jsonl")
    with open(stored.plain, "rb") as file:
        if not stored.is_unchanged(file):
            raise ValueError(
                f"{stored.name}: the file was written to while it was indexed; start again when it is done"
            )
    return spans
