"""Record files as they lie on disk: `.json` and `.jsonl`, gzipped or not, read into plain dictionaries.

What a record means is the business of `formats/`; here it only has to be JSON, and an object.
"""

from __future__ import annotations

import codecs
import gzip
import zlib
from pathlib import Path
from typing import Any

import orjson

from paddlemix.conversation import RecordError, RecordId, result_or_error

Record = dict[str, Any]
# A record, or why there is none in its place: one bad record must not hide the others.
Entry = Record | RecordError
Located = tuple[Entry, RecordId]

SUFFIXES = (".json", ".jsonl")
GZIP_SUFFIX = ".gz"
_SHOWN_CHARACTERS = 60
_KINDS: dict[type, str] = {str: "text", list: "list", dict: "object"}


def read_records(path: str | Path) -> list[Entry] | Record:
    """Read a record file.

    Args:
        path: a `.json` file with one list (or one object, for formats that keep tables), or a `.jsonl` file with one
            object per line; UTF-8, a byte order mark and blank lines are ignored. With `.gz` after it, gzipped.

    Returns:
        One entry per record in the file's order, or the object that a `.json` file consists of.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has another suffix, holds no record, or as a whole is not JSON.
    """
    file = checked_file(path)
    content = _read_bytes(file).removeprefix(codecs.BOM_UTF8)
    if not content.strip():
        raise ValueError(f"{path}: the file is empty; expected at least one record")
    return _read_lines(content, str(path)) if kind_of(file) == ".jsonl" else _read_document(content, str(path))


def checked_file(path: str | Path) -> Path:
    """Make sure that a record file is there.

    Args:
        path: as the config has it.

    Returns:
        The file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has another suffix.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{path}: no such record file; correct `data_files` (relative to {Path.cwd()})")
    if kind_of(file) not in SUFFIXES:
        raise ValueError(f"{path}: a record file ends in {endings()}, this one in {file.suffix!r}")
    return file


def kind_of(file: Path) -> str:
    """Return a record file's ending, `.json` or `.jsonl`, whether it is gzipped or not."""
    return Path(file.stem).suffix if file.suffix == GZIP_SUFFIX else file.suffix


def endings() -> str:
    """Name the endings of record files in words."""
    return f"{' or '.join(SUFFIXES)}, with or without {GZIP_SUFFIX} after it"


def as_entries(values: list[Any], file: str) -> list[Entry]:
    """Tell records from values that are none.

    Args:
        values: what a JSON list holds.
        file: the file to name in errors.

    Returns:
        The objects among the values, and an error in the place of each other one.
    """
    return [as_record(value, RecordId(file, index)) for index, value in enumerate(values)]


def describe(value: Any) -> str:
    """Put a JSON value into words, for an error message.

    Args:
        value: anything that JSON can hold.

    Returns:
        Its kind, as JSON calls it, and the value, shortened.
    """
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    kind = _KINDS.get(type(value), "number")
    if isinstance(value, str):
        value = value[: _SHOWN_CHARACTERS + 1]  # the rest, which may be a whole image, is not shown
    try:
        text = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError:  # orjson reads deeper nesting than it writes
        return f"a {kind} that is nested too deep, or too long, to show"
    shown = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
    return f"the {kind} {shown}"


def _read_bytes(file: Path) -> bytes:
    content = file.read_bytes()
    if file.suffix != GZIP_SUFFIX:
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file}: the file is no gzip file, or cut off: {error}") from error


def _read_document(content: bytes, file: str) -> list[Entry] | Record:
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{file}: {malformed(error, content, first_line=1)}") from error
    if isinstance(document, dict):
        return document
    if not isinstance(document, list):
        raise ValueError(f"{file}: the file holds {describe(document)}; expected a list of records")
    if not document:
        raise ValueError(f"{file}: the list is empty; expected at least one record")
    return as_entries(document, file)


def _read_lines(content: bytes, file: str) -> list[Entry]:
    lines = [(number, line) for number, line in enumerate(content.split(b"\n"), start=1) if line.strip()]
    return [
        result_or_error(_read_line, line, number, RecordId(file, index)) for index, (number, line) in enumerate(lines)
    ]


def _read_line(line: bytes, number: int, source: RecordId) -> Entry:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise RecordError(source, malformed(error, line, first_line=number)) from error
    return as_record(value, source)


def as_record(value: Any, source: RecordId) -> Entry:
    """Return the value if it is an object, else an error that says what it is.

    Args:
        value: what JSON held.
        source: the record to name.

    Returns:
        The record, or why it is none.
    """
    if isinstance(value, dict):
        return value
    return RecordError(source, f"the record is {describe(value)}; expected an object")


def malformed(error: orjson.JSONDecodeError, content: bytes, first_line: int) -> str:
    """Say what is wrong with a text that is no JSON, and where.

    Args:
        error: what the parser said of it.
        content: the text.
        first_line: the number of the line in the file at which it starts.

    Returns:
        Line, column and problem.
    """
    try:
        content.decode()
    except UnicodeDecodeError as undecodable:
        # orjson reports line 1, column 1 for any byte that is not UTF-8.
        before = content[: undecodable.start]
        line, column = before.count(b"\n"), len(before.rpartition(b"\n")[2].decode()) + 1
        return f"not UTF-8 at line {first_line + line}, column {column}; save the file as UTF-8"
    return f"malformed JSON at line {first_line + error.lineno - 1}, column {error.colno}: {error.msg}"
