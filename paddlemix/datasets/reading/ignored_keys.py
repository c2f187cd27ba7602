"""Taking keys out of a record that its user knows to mean nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from paddlemix.datasets.records.json_files import Record

# Below these lie a user's own names: of functions, of their arguments, and of what these may be.
_NAMED_BY_USERS = ("tools", "arguments", "parameters")


def without_keys(record: Record, ignored: Collection[str]) -> Record:
    """Leave keys out of a record, and out of the turns, parts and other objects in it.

    Args:
        record: as its file has it; stays as it is.
        ignored: names of keys, such as "score", wherever they stand; or with the end of the way to them, such as
            "messages[].score" in each of a list and "image.score" in an object.

    Returns:
        The rest of the record.
    """
    # Looked up by their lengths: a record may have as many keys that nothing reads as it has keys.
    return _object_without(record, frozenset(ignored), sorted({len(name) for name in ignored}), "")


def _object_without(value: Record, ignored: frozenset[str], lengths: Sequence[int], place: str) -> Record:
    return {
        key: inner if key in _NAMED_BY_USERS else _without(inner, ignored, lengths, f"{place}{key}")
        for key, inner in value.items()
        if not _ends_in(f".{place}{key}", ignored, lengths)
    }


def _ends_in(path: str, ignored: frozenset[str], lengths: Sequence[int]) -> bool:
    """Tell whether a path ends in a dot and an ignored name."""
    begins = [len(path) - length for length in lengths if length < len(path)]
    return any(path[begin - 1] == "." and path[begin:] in ignored for begin in begins)


def _without(value: Any, ignored: frozenset[str], lengths: Sequence[int], place: str) -> Any:
    if isinstance(value, dict):
        return _object_without(value, ignored, lengths, f"{place}.")
    if isinstance(value, list):
        return [_without(one, ignored, lengths, f"{place}[]") for one in value]
    return value
