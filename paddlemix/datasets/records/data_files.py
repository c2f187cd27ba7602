"""The record files of a set, and the records in them in the format of the set."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path

from paddlemix.cache import identity
from paddlemix.conversation import RecordError, RecordId, UnknownKeysError
from paddlemix.datasets.formats.format import Format
from paddlemix.datasets.reading.context import Reading
from paddlemix.datasets.reading.ignored_keys import without_keys
from paddlemix.datasets.records.file_names import SUFFIXES, check_folder, endings, kind_of, spelled_out
from paddlemix.datasets.records.indexed_file import Records, open_records
from paddlemix.datasets.records.json_files import Entry, Located, Record
from paddlemix.datasets.records.stores.stored import StoredRecords

# A file, and what it holds: records, or one object: a record alone, or tables that a format has to expand.
FileContent = tuple[str, StoredRecords | list[Entry] | Record]
_SHOWN_CHARACTERS = 300


class OneRecord:
    """The record of a file that is one object.

    Args:
        record: the object.
        source: its place.
    """

    def __init__(self, record: Record, source: RecordId) -> None:
        self.identity = identity(source.file)
        self._record = record
        self._source = source

    def __len__(self) -> int:
        return 1

    def located(self, rows: Iterable[int]) -> Iterator[Located]:
        """Give the record; see `RecordFile.located`."""
        return ((self._record, self._source) for _ in rows)


def find_record_files(name: str) -> list[str]:
    """Find the record files that an entry of `data_files` means.

    Args:
        name: a file; a folder, for the record files that lie right in it; a pattern such as `part-*.jsonl` or
            `**/*.json`; or a stretch of numbered files such as `shard-{000..127}.tar`.

    Returns:
        Their paths, sorted; a name that is no folder and no pattern comes back as it is, whether it exists or not.

    Raises:
        FileNotFoundError: the folder has no record file, or nothing matches the pattern.
        ValueError: the folder holds its records in files of another kind, or there is no such stretch.
    """
    if Path(name).is_dir():
        check_folder(Path(name))
        found = [str(path) for path in Path(name).iterdir() if path.is_file() and kind_of(path) in SUFFIXES]
        missing = f"no file in this folder ends in {endings()}"
    elif glob.has_magic(name) and not Path(name).exists():
        found = [path for path in glob.glob(name, recursive=True) if Path(path).is_file()]
        missing = "no file matches this pattern"
    else:
        return spelled_out(name)
    if not found:
        raise FileNotFoundError(f"{name}: {missing}; correct `data_files` (relative to {Path.cwd()})")
    return sorted(found)


def read_files(names: Iterable[str], unpack_limit: int | None = None) -> Iterator[FileContent]:
    """Open the record files of a set, one after the other.

    Args:
        names: the entries of `data_files`.
        unpack_limit: bytes that a gzipped or Parquet file may hold; None lets its size decide.

    Yields:
        Each file and its content.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file as a whole cannot be read.
    """
    for name in names:
        yield from ((file, open_records(file, unpack_limit)) for file in find_record_files(name))


def locate_records(contents: Iterable[FileContent], name: str, record_format: Format) -> Iterator[Located]:
    """List the records that files hold.

    Args:
        contents: what `read_files` gives.
        name: the format's name, for errors.
        record_format: expands files that are one object each; all of them together, after the other files.

    Yields:
        Each record and its place.

    Raises:
        ValueError: a file holds one object that the format neither reads nor expands.
    """
    documents: dict[str, Record] = {}
    for file, content in contents:
        if not isinstance(content, dict):
            yield from ((entry, RecordId(file, index)) for index, entry in enumerate(content))
        elif _is_record(content, file, name, record_format):
            yield content, RecordId(file, 0)
        else:
            documents[file] = content
    if documents and record_format.expand is not None:
        yield from record_format.expand(documents)


def divide_contents(
    contents: Iterable[FileContent], name: str, record_format: Format
) -> tuple[list[Records], dict[str, Record]]:
    """Tell files of records from those that are tables.

    Args:
        contents: what `read_files` gives.
        name: the format's name, for errors.
        record_format: tells a record alone from tables.

    Returns:
        The records of the former, file by file; and what each of the latter holds.

    Raises:
        ValueError: a file holds one object that the format neither reads nor expands.
    """
    records: list[Records] = []
    documents: dict[str, Record] = {}
    for file, content in contents:
        if isinstance(content, StoredRecords):
            records.append(content)
        elif isinstance(content, dict) and _is_record(content, file, name, record_format):
            records.append(OneRecord(content, RecordId(file, 0)))
        elif isinstance(content, dict):
            documents[file] = content
    return records, documents


def _is_record(document: Record, file: str, name: str, record_format: Format) -> bool:
    """Tell whether an object is a record; ValueError where it is neither that nor tables."""
    try:
        record_format.parse(document, Reading(RecordId(file, 0), Path(file).parent))
    except UnknownKeysError as error:
        # Tables have keys of their own; elsewhere they are a record's, and told with those of all others.
        rest = without_keys(document, error.keys)
        return rest != document and record_format.expand is None and _is_record(rest, file, name, record_format)
    except RecordError as error:
        if record_format.expand is not None:
            return False
        raise ValueError(
            f"{file}: the file holds one object; {name} expects a list of records, and the object is none itself: "
            f"{error.problem[:_SHOWN_CHARACTERS]}"
        ) from error
    return True
