"""What is wrong with a text that is no JSON, in words, and where."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from paddlemix.datasets.records.json_text.encodings import SAVE_AS, looks_like

PYTHON_FORM = "written in Python's own form, with single quotes, and is no JSON; write it with json.dumps"
_PYTHON_KEY = re.compile(r"[\[{,(]\s*'[^']*'\s*[:,\]}]|^\s*\{\s*'")
_HALF = re.compile("[\ud800-\udfff]")
_NEWLINE = re.compile("\r\n|\r|\n")
# A longer text is not read again to find out more about what is wrong with it.
_LONGEST = 1 << 24


@dataclass(frozen=True)
class Start:
    """Where a text begins in its file.

    Attributes:
        line: its number, from 1 on.
        before: what stands before the text in this line; None where that is too long to count.
        byte: bytes of the file before the text.
    """

    line: int = 1
    before: bytes | None = b""
    byte: int = 0

    def after(self, text: str) -> str:
        """Name the place behind some of the text."""
        rows = _NEWLINE.split(text)
        if len(rows) == 1 and self.before is None:
            return f"byte {self.byte + len(text.encode()) + 1}"
        before = (self.before or b"").decode(errors="replace") if len(rows) == 1 else ""
        return f"line {self.line + len(rows) - 1}, column {len(before + rows[-1]) + 1}"


class _Constant(str):
    """A number that JSON has no word for, by the name that JavaScript and Python have for it."""


def problem_of(error: orjson.JSONDecodeError, text: bytes, start: Start) -> str:
    """Say what is wrong with a text that is no JSON, and where.

    Args:
        error: what the parser said of it.
        text: the text.
        start: where it begins.

    Returns:
        The key, where it is a value that is wrong; the place, the problem, and what to do where that is known.
    """
    try:
        text.decode()
    except UnicodeDecodeError as undecodable:
        # orjson reports line 1, column 1 for any byte that is not UTF-8.
        place = start.after(text[: undecodable.start].decode())
        return f"not UTF-8 at {place}, it looks like {looks_like(text)}; {SAVE_AS}"
    place = start.after(error.doc[: error.pos])
    return _problem_of_value(error.doc, place) or f"malformed JSON at {place}: {_reason(error)}"


def _problem_of_value(text: str, place: str) -> str | None:
    """Name a value that Python writes and JSON knows nothing of; None where more is wrong."""
    if len(text) > _LONGEST:
        return None
    try:
        document = json.loads(text, strict=False, parse_constant=_Constant, parse_int=len, parse_float=len)
    except (ValueError, RecursionError):
        return None
    for path, value in _leaves(document):
        if isinstance(value, _Constant):
            return f"`{path}` is {value} at {place}, for which JSON has no word; write a number or null"
        half = _HALF.search(value + path) if isinstance(value, str) else _HALF.search(path)
        if half:
            path = _HALF.sub("?", path)
            return (
                f"`{path}` holds \\u{ord(half[0]):x} at {place}, half of a character; write the whole character, or "
                "leave it out"
            )
    return None


def _leaves(document: Any) -> Iterator[tuple[str, Any]]:
    """Yield the values that hold no others, with the keys that lead to them."""
    todo: list[tuple[str, Any]] = [("", document)]
    while todo:
        path, value = todo.pop()
        if isinstance(value, dict):
            todo += [(f"{path}.{key}" if path else key, inner) for key, inner in reversed(value.items())]
        elif isinstance(value, list):
            todo += [(f"{path}[{place}]", inner) for place, inner in reversed([*enumerate(value)])]
        else:
            yield path, value


def _reason(error: orjson.JSONDecodeError) -> str:
    text = error.doc
    if not text.strip():
        return "there is nothing between two commas"
    if _PYTHON_KEY.search(text[: error.pos + 1]) or _PYTHON_KEY.match(text):
        return f"the record is {PYTHON_FORM}"
    return error.msg
