"""Values of a record: they must be there, and of their kind; paths start at the set's folder of images."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from paddlemix.conversation import RecordError, RecordId
from paddlemix.datasets.records.json_files import Record, describe

_TEXT = "a text that is not blank"
# A path that pathlib would leave as it is.
_PLAIN = re.compile(r"/?(?!~|\.{1,2}/)[^/\\:\s.~][^/\\:]*(?:/[^/\\:\s.][^/\\:]*)*\Z")
T = TypeVar("T")


def require(record: Record, key: str, kind: type[T], expected: str, source: RecordId, within: str = "the record") -> T:
    """Read a key that a record must have.

    Args:
        record: where to look.
        key: what to look for.
        kind: the Python type of the value.
        expected: the value in words, for the error.
        source: the record to name in errors.
        within: what `record` is called, for the error.

    Returns:
        The value.

    Raises:
        RecordError: the key is missing or its value of another kind.
    """
    if key not in record:
        found = ", ".join(f"`{name}`" for name in record) or "no key at all"
        raise RecordError(source, f"key `{key}` is missing in {within}, which has {found}; expected {expected}")
    value = record[key]
    if not isinstance(value, kind):
        raise RecordError(source, f"`{key}` of {within} is {describe(value)}; expected {expected}")
    return value


def text_at(record: Record, key: str, source: RecordId) -> str:
    """Read a text that a record must have.

    Args:
        record: where to look.
        key: what to look for.
        source: the record to name in errors.

    Returns:
        The text, not blank.

    Raises:
        RecordError: the key is missing, or its value is not a text, or blank.
    """
    return checked_text(require(record, key, str, _TEXT, source), f"`{key}` of the record", source)


def checked_text(value: object, name: str, source: RecordId) -> str:
    """Make sure that a value is a text that is not blank.

    Args:
        value: the value to check.
        name: what to call it in the error.
        source: the record to name in errors.

    Returns:
        The value itself.

    Raises:
        RecordError: it is something else.
    """
    if not isinstance(value, str) or not value.strip():
        raise RecordError(source, f"{name} is {describe(value)}; expected {_TEXT}")
    return value


def resolved(path: str, root: Path) -> str:
    """Tell where a record's image or video is.

    Args:
        path: as the record has it, not blank. It may be a `file://` URL, begin with `~/`, or be written with the
            backslashes of Windows.
        root: the folder of relative paths.

    Returns:
        http(s) addresses, data: URLs and absolute paths as they are, others from `root` on.
    """
    if _PLAIN.match(path):  # as most are; pathlib takes ten times as long
        return path if path[0] == "/" else f"{root}/{path}" if str(root) != "." else path
    if path.lstrip()[:8].lower().startswith(("http://", "https://", "data:")):
        return path.strip()
    given = path.removeprefix("file://")
    if given != path:
        plain = unquote(given.removeprefix("localhost"))
    else:
        plain = os.path.expanduser("~") + given[1:] if given.startswith(("~/", "~\\")) else given
    # On most systems a name may hold these characters: what is there as it stands is meant as it stands.
    *others, likeliest = dict.fromkeys((given, plain, plain.replace("\\", "/")))
    return next((found for one in others if os.path.exists(found := str(root / one))), str(root / likeliest))
