"""The text of one record, read."""

from __future__ import annotations

import codecs
import json
from typing import Any

import orjson

from paddlemix.conversation import RecordError, RecordId
from paddlemix.datasets.records.json_files import Entry, as_record

# Bytes of a record; more is no record but what a broken one has swallowed, or a file of another kind.
LONGEST = 1 << 28


def read_record(text: bytes, source: RecordId) -> Entry:
    """Read the text of a record.

    Args:
        text: JSON; a byte order mark is ignored.
        source: the record to name.

    Returns:
        The record, or why it is none.

    Raises:
        orjson.JSONDecodeError: the text is no JSON.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        # Files that were put together have such marks in their midst.
        bare = text.lstrip().removeprefix(codecs.BOM_UTF8)
        if len(bare) == len(text.lstrip()):
            raise
        value = orjson.loads(bare)
    key = repeated_key(text, value)
    if key is not None:
        return RecordError(source, f"key `{key}` comes twice in one object; leave one of the two out")
    return as_record(value, source)


def repeated_key(text: bytes, value: Any) -> str | None:
    """Find a key that an object has twice, of which a parser takes the last.

    Args:
        text: JSON.
        value: what it was parsed to.

    Returns:
        The key; None where there is none.
    """
    # Each key has a colon, and written again the values have those that stand in the texts they kept: a repeated key
    # leaves at least one out. An escaped colon would be counted on one side only.
    try:
        if text.count(b":") == orjson.dumps(value).count(b":") and b"\\u003" not in text:
            return None
    except orjson.JSONEncodeError:  # it reads deeper nesting than it writes
        pass
    try:
        json.loads(text, object_pairs_hook=_refuse_repeated, parse_int=len, parse_float=len)
    except _Repeated as repeated:
        return repeated.args[0]
    except RecursionError:  # deeper than any format reads
        return None
    return None


class _Repeated(Exception):
    """Carries the key."""


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise _Repeated(key)
        seen.add(key)
