"""Texts that are not UTF-8, and which encoding they look like."""

from __future__ import annotations

import codecs
import re

_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]+")
SAVE_AS = "save the file as UTF-8"


def check_encoding(head: bytes) -> None:
    """Refuse a text file that is in another encoding than UTF-8 from its beginning on.

    Args:
        head: the file's first bytes, so many that they tell.

    Raises:
        ValueError: it looks like UTF-16, UTF-32, GBK or another one. Single bytes among UTF-8 are left to the record
            that they are in.
    """
    name = _wide_encoding(head) or _narrow_encoding(head)
    if name:
        raise ValueError(f"the file is not UTF-8, it looks like {name}; {SAVE_AS}")


def looks_like(text: bytes) -> str:
    """Guess the encoding of bytes that are not UTF-8.

    Args:
        text: some of them, whole lines or records.

    Returns:
        Its name, GBK or Windows-1252.
    """
    try:
        text.decode("gb18030")
    except UnicodeDecodeError:
        return "Windows-1252"
    return "GBK"


def _wide_encoding(head: bytes) -> str | None:
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            return name
    # JSON and tables begin with ASCII, whose other bytes are zero there.
    zeros = [byte == 0 for byte in head[:4]]
    if sum(zeros) == 3:
        return "UTF-32"
    return "UTF-16" if zeros[:2] in ([True, False], [False, True]) else None


def _narrow_encoding(head: bytes) -> str | None:
    stretches = _BEYOND_ASCII.findall(head)
    well_formed = sum(len(stretch) for stretch in stretches if _is_utf8(stretch))
    lines = head.splitlines()
    # Broken bytes in a few lines of many are those lines' own problem.
    if 2 * well_formed >= sum(map(len, stretches)) or 2 * sum(map(_is_utf8, lines)) > len(lines):
        return None
    try:
        codecs.getincrementaldecoder("gb18030")().decode(head)
    except UnicodeDecodeError:
        return None
    return "GBK"


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
