"""Texts of strangers in a form that no terminal, log or page acts upon."""

from __future__ import annotations

import re

# What is shown as its number: control characters (C0 without tab and newline, DEL, C1, of which terminals make
# commands), line ends that are not "\n", characters that turn the direction of writing, marks that are not seen,
# and halves of characters, which cannot be written at all. Joiners and variation selectors stay: scripts and emoji
# need them.
_COMMANDS = (
    "\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff"
)
_IN_TEXTS = re.compile(f"[{_COMMANDS}]")
_IN_LINES = re.compile(f"[\t\n{_COMMANDS}]")
_LONGEST, _SHOWN_BEGINNING, _SHOWN_END = 4000, 2500, 1000
_LONGEST_NAME = 80
# As JSON has them, so that what was JSON stays JSON.
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def printable(text: str) -> str:
    r"""Write the characters of a text that would act on a terminal as their numbers, such as `\u001b`.

    Args:
        text: of any origin, such as a model's answer.

    Returns:
        The text; newlines and tabs stay.
    """
    return _IN_TEXTS.sub(_number, text)


def in_one_line(text: str) -> str:
    r"""Write a text as `printable` does, and newlines and tabs as `\n` and `\t`.

    Args:
        text: of any origin, such as a path that a record names.

    Returns:
        One line.
    """
    return _IN_LINES.sub(_number, text)


def short_line(text: str) -> str:
    """Write a text as `in_one_line` does, and leave the middle out of one that nobody would read to its end.

    Args:
        text: such as an error that quotes a record.

    Returns:
        One line of at most 4,000 characters; what is short enough already stays as it is.
    """
    line = in_one_line(text)
    if len(line) <= _LONGEST:
        return line
    left_out = len(line) - _SHOWN_BEGINNING - _SHOWN_END
    return f"{line[:_SHOWN_BEGINNING]} [{left_out:,} characters] {line[-_SHOWN_END:]}"


def brief(name: str) -> str:
    """Write a name as `in_one_line` does, cut to 80 characters of it.

    Args:
        name: such as that of a tensor in a file.

    Returns:
        One line.
    """
    line = in_one_line(name[: _LONGEST_NAME + 1])
    return line if len(line) <= _LONGEST_NAME else f"{line[: _LONGEST_NAME - 3]}..."


def _number(found: re.Match[str]) -> str:
    code = ord(found[0])
    return _SHORT.get(found[0]) or f"\\u{code:04x}"
