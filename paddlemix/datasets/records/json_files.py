"""What a record is before a format reads it: an object of JSON, or why there is none in its place."""

from __future__ import annotations

from typing import Any

import orjson

from paddlemix.conversation import RecordError, RecordId

Record = dict[str, Any]
# A record, or why there is none in its place: one bad record must not hide the others.
Entry = Record | RecordError
Located = tuple[Entry, RecordId]

_SHOWN_CHARACTERS = 60
_KINDS: dict[type, str] = {str: "text", list: "list", dict: "object"}


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
