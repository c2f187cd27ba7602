"""Record files that are tables: one object whose lists refer to one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from paddlemix.conversation import RecordError, RecordId, result_or_error
from paddlemix.datasets.records.json_files import Located, Record, as_entries, describe

Key = int | str


def table(document: Record, key: str, file: str) -> list[Any]:
    """Read a table of a file.

    Args:
        document: what the file holds.
        key: the table's name.
        file: the file to name in errors.

    Returns:
        Its rows, at least one.

    Raises:
        ValueError: there is no such table, or it has no rows.
    """
    rows = document.get(key)
    if not isinstance(rows, list) or not rows:
        raise ValueError(
            f"{file}: `{key}` is {describe(rows)}; expected a list that is not empty, as this format's own files have "
            "it, or a file that is one list of records"
        )
    return rows


def rows_by_key(rows: list[Any], key: str, required: str, name: str) -> dict[Key, Record]:
    """Index a table that others refer to; without all of it, none of them can be trusted.

    Args:
        rows: the table.
        key: the column that the others refer to.
        required: another column that each row must have.
        name: the file and the table, to name in errors.

    Returns:
        The rows by their keys.

    Raises:
        ValueError: a row is no object, lacks one of the two, or has the key of another.
    """
    index: dict[Key, Record] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get(key), (int, str)) or row.get(required) is None:
            raise ValueError(f"{name}[{number}]` is {describe(row)}; expected an object with `{key}` and `{required}`")
        if row[key] in index and index[row[key]][required] != row[required]:
            raise ValueError(
                f"{name}[{number}]` has the `{key}` {describe(row[key])} of a row before it; expected its own"
            )
        index[row[key]] = row
    return index


def joined(rows: list[Any], join: Callable[[Record, RecordId], Record], file: str) -> Iterator[Located]:
    """Make a record of each row.

    Args:
        rows: the table that has a row per record.
        join: `join(row, source)` looks up what the row refers to; raises `RecordError`.
        file: the file to name in errors.

    Yields:
        The records, or why there is none in a row's place.
    """
    for index, entry in enumerate(as_entries(rows, file)):
        source = RecordId(file, index)
        yield entry if isinstance(entry, RecordError) else result_or_error(join, entry, source), source
