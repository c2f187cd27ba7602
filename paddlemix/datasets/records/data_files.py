"""The record files of a set, and the records in them in the format of the set."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path

from paddlemix.conversation import RecordId
from paddlemix.datasets.formats.format import Format
from paddlemix.datasets.records.indexed_file import RecordFile, open_records
from paddlemix.datasets.records.json_files import SUFFIXES, Entry, Located, Record, endings, kind_of

# A file, and what it holds: records, or one object whose tables a format has to expand.
FileContent = tuple[str, RecordFile | list[Entry] | Record]


def find_record_files(name: str) -> list[str]:
    """Find the record files that an entry of `data_files` means.

    Args:
        name: a file; a folder, for the record files that lie right in it; or a pattern such as `part-*.jsonl` or
            `**/*.json`.

    Returns:
        Their paths, sorted; a name that is no folder and no pattern comes back as it is, whether it exists or not.

    Raises:
        FileNotFoundError: the folder has no record file, or nothing matches the pattern.
    """
    if Path(name).is_dir():
        found = [str(path) for path in Path(name).iterdir() if path.is_file() and kind_of(path) in SUFFIXES]
        missing = f"no file in this folder ends in {endings()}"
    elif glob.has_magic(name) and not Path(name).exists():
        found = [path for path in glob.glob(name, recursive=True) if Path(path).is_file()]
        missing = "no file matches this pattern"
    else:
        return [name]
    if not found:
        raise FileNotFoundError(f"{name}: {missing}; correct `data_files` (relative to {Path.cwd()})")
    return sorted(found)


def read_files(names: Iterable[str]) -> Iterator[FileContent]:
    """Open the record files of a set, one after the other.

    Args:
        names: the entries of `data_files`.

    Yields:
        Each file and its content.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file as a whole cannot be read.
    """
    for name in names:
        yield from ((file, open_records(file)) for file in find_record_files(name))


def locate_records(contents: Iterable[FileContent], name: str, record_format: Format) -> Iterator[Located]:
    """List the records that files hold.

    Args:
        contents: what `read_files` gives.
        name: the format's name, for errors.
        record_format: expands files that are one object each; all of them together, after the other files.

    Yields:
        Each record and its place.

    Raises:
        ValueError: a file holds one object that the format does not expand.
    """
    documents: dict[str, Record] = {}
    for file, content in contents:
        if not isinstance(content, dict):
            yield from ((entry, RecordId(file, index)) for index, entry in enumerate(content))
        elif record_format.expand is None:
            raise ValueError(f"{file}: the file holds one object; {name} expects a list of records")
        else:
            documents[file] = content
    if documents and record_format.expand is not None:
        yield from record_format.expand(documents)
