"""Where the lines of a JSON Lines file begin and end."""

from __future__ import annotations

import codecs
import mmap

import numpy as np

_CHUNK = 1 << 22
# Of most lines the ends are not blank.
_SHORT = 1 << 6
_NEWLINE = ord("\n")
_BLANK = b" \t\r\n"
_OPENING, _CLOSING = (np.frombuffer(characters, dtype=np.uint8) for characters in (b"{[", b"}]"))


def start_of(content: mmap.mmap | bytes) -> int:
    """Tell how many bytes a byte order mark takes."""
    return len(codecs.BOM_UTF8) if content[:3] == codecs.BOM_UTF8 else 0


def start_of_text(content: mmap.mmap | bytes) -> int:
    """Find the first byte that is neither blank nor of a byte order mark; the file's length where there is none."""
    return start_between(content, start_of(content), len(content))


def end_of_text(content: mmap.mmap | bytes) -> int:
    """Find the end of the last byte that is not blank; 0 where there is none."""
    return end_between(content, 0, len(content))


def start_between(content: mmap.mmap | bytes, start: int, end: int, blanks: bytes = _BLANK) -> int:
    """Find the first byte of a stretch that is none of `blanks`; its end where there is none.

    The stretch may be a whole file, of which no more than a piece is in memory.
    """
    size = _SHORT
    while start < end:
        chunk = content[start : min(start + size, end)]
        rest = chunk.lstrip(blanks)
        if rest:
            return start + len(chunk) - len(rest)
        start += size
        size = _CHUNK
    return end


def end_between(content: mmap.mmap | bytes, start: int, end: int) -> int:
    """Find the end of the last byte of a stretch that is not blank; its start where there is none."""
    size = _SHORT
    while end > start:
        begin = max(end - size, start)
        rest = content[begin:end].rstrip(_BLANK)
        if rest:
            return begin + len(rest)
        end = begin
        size = _CHUNK
    return start


def index_lines(content: mmap.mmap | bytes) -> tuple[np.ndarray, float]:
    """Find the lines that are not blank.

    Args:
        content: of a record file; a byte order mark is ignored.

    Returns:
        int64[lines, 3], where each begins and ends in bytes, and its number, from 1 on; and the share of them that look
        like an object, or a list, from their first character to their last.
    """
    begins = [np.array([start_of(content)])]
    for offset in range(start_of(content), len(content), _CHUNK):
        chunk = np.frombuffer(content[offset : offset + _CHUNK], dtype=np.uint8)
        begins.append(np.flatnonzero(chunk == _NEWLINE) + offset + 1)
    bounds = np.concatenate([*begins, [len(content) + 1]])
    lines = np.stack([bounds[:-1], bounds[1:] - 1, np.arange(1, len(bounds))], axis=1)
    is_whole = _look_whole(content, lines)
    rest = np.flatnonzero(~is_whole)
    is_blank = np.zeros(len(lines), dtype=bool)
    for number, (first, last) in zip(rest.tolist(), lines[rest, :2].tolist(), strict=True):
        if last - first <= _CHUNK:
            text = content[first:last].strip(_BLANK)
            is_blank[number] = not text
            is_whole[number] = text[:1] + text[-1:] in (b"{}", b"[]")
            continue
        first = start_between(content, first, last)
        last = end_between(content, first, last)
        is_blank[number] = first == last
        is_whole[number] = content[first : first + 1] + content[max(last - 1, first) : last] in (b"{}", b"[]")
    lines = lines[~is_blank]
    return lines, float(is_whole.sum() / max(len(lines), 1))


def _look_whole(content: mmap.mmap | bytes, lines: np.ndarray) -> np.ndarray:
    """Tell which lines open with a bracket and end with one; of the others some may, with blanks around them."""
    characters = np.frombuffer(content, dtype=np.uint8)
    begins, ends = lines[:, 0], lines[:, 1]
    is_long = ends - begins > 2
    if not len(characters):
        return is_long
    begins, ends = np.where(is_long, begins, 0), np.where(is_long, ends, 1)
    ends = ends - (characters[ends - 1] == ord("\r")) * is_long
    return is_long & np.isin(characters[begins], _OPENING) & np.isin(characters[ends - 1], _CLOSING)
