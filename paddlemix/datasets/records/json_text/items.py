"""Where the records of a JSON list, or JSON values that follow one another, begin and end.

A broken record must not take the others with it. One whose brackets or quotes do not match would swallow what stands
behind it, so it is cut off where the next record seems to begin, and the walk starts anew there.
"""

from __future__ import annotations

import mmap
import re
from array import array
from typing import Literal

import numpy as np
import orjson

from paddlemix.datasets.records.json_text.lines import end_of_text, start_between
from paddlemix.datasets.records.json_text.reading import LONGEST
from paddlemix.datasets.records.json_text.structure import COMMA, Scanner, Structure

# In a list a record begins as the first one does, in its own words; where values follow one another, with a line.
_FIRST_KEY = re.compile(rb'\[\s*\{\s*("(?:[^"\\]|\\.)*"\s*:)')
_NEXT_VALUE = re.compile(rb"[\r\n]+(?=\{)")
_TOKEN = re.compile(rb'\s+|("(?:[^"\\]|\\.)*")|([\[{])|([\]}])|[,:]|([^\s"\[\]{},:]+)|"', re.DOTALL)
_BETWEEN_VALUES = b", \t\r\n"
_COUNTED_AT_ONCE = 1 << 22
# A longer text is not checked token by token.
_LONGEST_CHECKED = 1 << 20

# In how many brackets the records stand: those of a list, or of no list.
Level = Literal[0, 1]


class NotClosedError(ValueError):
    """A list that was cut off."""


class Items:
    """Collects where records lie.

    Args:
        content: of a record file.
        level: how many brackets are around the records, 1 in a list.
        begin: where the list, or the first value, begins.
    """

    def __init__(self, content: mmap.mmap | bytes, level: Level, begin: int) -> None:
        self._content = content
        self._level = level
        self._begin = begin
        self._end = end_of_text(content)
        self._spans = array("q")
        self._next = self._next_start() if level else _NEXT_VALUE
        self._line, self._counted = 1, 0
        # A record that never closes costs a scan up to the end: how many bytes may be scanned in all.
        self._budget = 8 * len(content) + (1 << 26)

    def find(self) -> np.ndarray:
        """Find the records.

        Returns:
            int64[records, 3]: where each begins and ends in bytes; and 0, or of one that is no JSON the number of the
            line in which it begins.

        Raises:
            NotClosedError: the list is not closed.
        """
        begin: int | None = self._begin + self._level
        while begin is not None:
            begin = self._walk(begin)
        return np.array(self._spans, dtype=np.int64).reshape(-1, 3)

    def _walk(self, begin: int) -> int | None:
        """Collect records up to the end, or to one after which the walk starts anew; return where."""
        scanner = Scanner(self._content, self._level)
        before = 0
        for structure in scanner.scan(begin):
            self._budget -= scanner.scanned - before
            before = scanner.scanned
            separators, end = self._separators(structure)
            for place in separators:
                again = self._take(begin, place)
                if again is not None:
                    return again
                begin = place + self._level
            if end is not None:
                return self._finish(begin, end)
        return self._finish_open(begin)

    def _separators(self, structure: Structure) -> tuple[list[int], int | None]:
        """Find where records end, and the bracket that closes what they stand in."""
        places, kinds, depths = structure
        closing = np.flatnonzero(depths < self._level)
        inside = slice(None, closing[0]) if len(closing) else slice(None)
        at_level = depths[inside] == self._level
        is_end = at_level & ((kinds[inside] == COMMA) == bool(self._level))
        ends = places[inside][is_end] + (1 - self._level)
        return ends.tolist(), int(places[closing[0]]) if len(closing) else None

    def _take(self, begin: int, end: int) -> int | None:
        if not self._level:
            begin = start_between(self._content, begin, end, _BETWEEN_VALUES)
        try:
            # A longer one is told when it is read.
            orjson.loads(self._content[begin:end] if end - begin <= LONGEST else b"")
        except orjson.JSONDecodeError:
            return self._take_bad(begin, end)
        self._spans.extend((begin, end, 0))
        return None

    def _take_bad(self, begin: int, end: int) -> int | None:
        """Collect a broken record; return where the next one begins in what it swallowed, if it did."""
        found = None
        if self._next is not None and self._budget > 0 and not _is_closed(self._content, begin, end):
            found = self._next.search(self._content, begin, end)
        while self._counted < begin:
            text = self._content[self._counted : min(self._counted + _COUNTED_AT_ONCE, begin)]
            if text.endswith(b"\r") and len(text) > 1:  # it may belong to a newline
                text = text[:-1]
            self._line += text.count(b"\n") + text.count(b"\r") - text.count(b"\r\n")
            self._counted += len(text)
        self._spans.extend((begin, found.start() if found else end, self._line))
        return found.end() if found else None

    def _finish(self, begin: int, end: int) -> int | None:
        if not self._level or self._content[end : end + 1] != b"]":
            return self._take_bad(begin, self._end)
        # A comma may stand behind the last record.
        if start_between(self._content, begin, end) < end:
            again = self._take(begin, end)
            if again is not None:
                return again
        return self._take_bad(end + 1, self._end) if end + 1 < self._end else None

    def _finish_open(self, begin: int) -> int | None:
        if not self._level:
            begin = start_between(self._content, begin, self._end, _BETWEEN_VALUES)
            return self._take_bad(begin, self._end) if begin < self._end else None
        if self._content[self._end - 1 : self._end] != b"]":
            raise NotClosedError(
                "the list is not closed by `]`, so the file was cut off or not written to its end; write it anew"
            )
        return self._take_bad(begin, self._end - 1)

    def _next_start(self) -> re.Pattern[bytes] | None:
        found = _FIRST_KEY.match(self._content, self._begin)
        return re.compile(rb",\s*(?=\{\s*" + re.escape(found[1]) + rb")") if found else None


def _is_closed(content: mmap.mmap | bytes, begin: int, end: int) -> bool:
    """Tell whether brackets and quotes match, so that a broken text has swallowed nothing."""
    if end - begin > _LONGEST_CHECKED:
        return False
    opened, last = bytearray(), b""
    for token in _TOKEN.finditer(content[begin:end]):
        string, opening, closing, word = token.groups()
        if opening:
            opened += opening
        elif (closing and opened[-1:] + closing not in (b"[]", b"{}")) or token[0] == b'"':
            return False
        elif closing:
            opened.pop()
        # Where a quote is missing, what should be inside a string stands beside one.
        elif (string and last == b"word") or (word and last == b"string"):
            return False
        if not token[0].isspace():
            last = b"string" if string else b"word" if word else b""
    return not opened
