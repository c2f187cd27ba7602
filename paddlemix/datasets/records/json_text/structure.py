"""Brackets, braces and commas of a JSON text outside strings, found without building what they enclose."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import numpy as np

# Bytes scanned at once, twice as many each time: arrays several times as large are made of them.
_FIRST_CHUNK, _LARGEST_CHUNK = 1 << 16, 1 << 22
COMMA, _QUOTE, _BACKSLASH = (np.uint8(ord(character)) for character in ',"\\')
_IS_STRUCTURE = np.isin(np.arange(256), list(b'[]{},"\\'))
_DEPTH = np.zeros(256, dtype=np.int64)
_DEPTH[list(b"[{")], _DEPTH[list(b"]}")] = 1, -1

Structure = tuple[np.ndarray, np.ndarray, np.ndarray]


class Scanner:
    """Walks over a text chunk by chunk, and remembers how deep it is in brackets and whether inside a string.

    Args:
        content: the text.
        depth: how deep in brackets the scan begins.

    Attributes:
        scanned: bytes so far.
    """

    scanned: int

    def __init__(self, content: mmap.mmap | bytes, depth: int) -> None:
        self.scanned = 0
        self._content = content
        self._depth = depth
        self._in_string = False
        self._next_is_escaped = False

    def scan(self, start: int) -> Iterator[Structure]:
        """Find brackets and commas outside strings.

        Args:
            start: where to begin; outside a string.

        Yields:
            Of each chunk, int64[n] where they are, uint8[n] what they are, and int64[n] the depth after each.
        """
        size = _FIRST_CHUNK
        while start < len(self._content):
            chunk = np.frombuffer(self._content[start : start + size], dtype=np.uint8)
            self.scanned += len(chunk)
            places, kinds, depths = self._structure(chunk)
            yield places + start, kinds, depths
            start += size
            size = min(2 * size, _LARGEST_CHUNK)

    def _structure(self, chunk: np.ndarray) -> Structure:
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
