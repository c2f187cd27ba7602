"""Where each record of a `.json` or `.jsonl` file begins and ends, found without building all of them at once."""

from __future__ import annotations

import codecs
import mmap
from collections.abc import Iterator

import numpy as np
import orjson

# Bytes scanned at once: arrays several times as large are made of them.
_CHUNK = 1 << 22
_OPENING, _CLOSING, _COMMA, _QUOTE, _BACKSLASH = (np.uint8(ord(character)) for character in '[],"\\')
_OPENING_OBJECT, _CLOSING_OBJECT = (np.uint8(ord(character)) for character in "{}")
_NEWLINE = ord("\n")
_IS_STRUCTURE = np.isin(np.arange(256), list(b'[]{},"\\'))
_DEPTH = np.zeros(256, dtype=np.int64)
_DEPTH[list(b"[{")], _DEPTH[list(b"]}")] = 1, -1


def index_lines(content: mmap.mmap | bytes) -> np.ndarray:
    """Find the lines that are not blank.

    Args:
        content: of a `.jsonl` file; a byte order mark is ignored.

    Returns:
        int64[lines, 3]: where each begins and ends in bytes, and its number, from 1 on.
    """
    begins = [np.array([_start(content)])]
    for offset, chunk in _chunks(content, _start(content)):
        begins.append(np.flatnonzero(chunk == _NEWLINE) + offset + 1)
    bounds = np.concatenate([*begins, [len(content) + 1]])
    lines = np.stack([bounds[:-1], bounds[1:] - 1, np.arange(1, len(bounds))], axis=1)
    return lines[_are_not_blank(content, lines)]


def index_list(content: mmap.mmap | bytes) -> np.ndarray | None:
    """Find the items of a JSON list.

    Args:
        content: of a `.json` file; a byte order mark is ignored.

    Returns:
        int64[items, 2], where each begins and ends in bytes; None where the content is not one well-formed list, which
        a parser of the whole has to say more about.
    """
    start = _start(content)
    commas, end = _ListScanner(content).scan(start)
    if end is None or content[end:].strip() != b"]" or content[start : start + 256].lstrip()[:1] != b"[":
        return None
    bounds = np.concatenate([[content.find(b"[", start)], *commas, [end]])
    items = np.stack([bounds[:-1] + 1, bounds[1:]], axis=1)
    return items if all(_is_json(content[first:last]) for first, last in items) else None


class _ListScanner:
    """Walks over a document chunk by chunk, and remembers how deep it is in brackets and whether inside a string."""

    def __init__(self, content: mmap.mmap | bytes) -> None:
        self._content = content
        self._depth = 0
        self._in_string = False
        self._next_is_escaped = False

    def scan(self, start: int) -> tuple[list[np.ndarray], int | None]:
        """Find the outermost list's commas, and the bracket that closes it; None where nothing does."""
        commas: list[np.ndarray] = []
        for offset, chunk in _chunks(self._content, start):
            places, kinds, depths = self._structure(chunk)
            closing = np.flatnonzero(depths == 0)
            inside = slice(None, closing[0]) if len(closing) else slice(None)
            is_separator = (kinds[inside] == _COMMA) & (depths[inside] == 1)
            commas.append(places[inside][is_separator] + offset)
            if len(closing):
                return commas, int(places[closing[0]]) + offset
        return commas, None

    def _structure(self, chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Find brackets and commas outside strings: their places, what they are, and the depth after each."""
        places = np.flatnonzero(_IS_STRUCTURE[chunk])
        kinds = chunk[places]
        quotes = self._real_quotes(chunk, places, kinds)
        outside = (kinds != _QUOTE) & (kinds != _BACKSLASH)
        places, kinds = places[outside], kinds[outside]
        is_free = (np.searchsorted(quotes, places) + self._in_string) % 2 == 0
        self._in_string = bool((len(quotes) + self._in_string) % 2)
        places, kinds = places[is_free], kinds[is_free]
        depths = self._depth + np.cumsum(_DEPTH[kinds])
        self._depth = int(depths[-1]) if len(depths) else self._depth
        return places, kinds, depths

    def _real_quotes(self, chunk: np.ndarray, places: np.ndarray, kinds: np.ndarray) -> np.ndarray:
        """Find the quotes that are not escaped by a backslash."""
        slashes = places[kinds == _BACKSLASH]
        # In a run of backslashes every other one escapes what follows it, from the first on, or from the second where
        # the first is escaped by the chunk before.
        is_first = np.diff(slashes, prepend=-2) != 1
        first = np.maximum.accumulate(np.where(is_first, slashes, -1)) if len(slashes) else slashes
        shifted = (first == 0) & self._next_is_escaped
        escaped = slashes[(slashes - first + shifted) % 2 == 0] + 1
        if self._next_is_escaped:
            escaped = np.append(0, escaped)
        self._next_is_escaped = bool(len(escaped) and escaped[-1] == len(chunk))
        quotes = places[kinds == _QUOTE]
        return quotes[~np.isin(quotes, escaped, assume_unique=True)] if len(escaped) else quotes


def _start(content: mmap.mmap | bytes) -> int:
    return len(codecs.BOM_UTF8) if content[:3] == codecs.BOM_UTF8 else 0


def _chunks(content: mmap.mmap | bytes, start: int) -> Iterator[tuple[int, np.ndarray]]:
    for offset in range(start, len(content), _CHUNK):
        yield offset, np.frombuffer(content[offset : offset + _CHUNK], dtype=np.uint8)


def _are_not_blank(content: mmap.mmap | bytes, lines: np.ndarray) -> np.ndarray:
    return np.fromiter((bool(content[first:last].strip()) for first, last, _ in lines), bool, len(lines))


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
