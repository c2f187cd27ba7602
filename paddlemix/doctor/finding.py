"""What a check found, and the page that findings make."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from paddlemix.printable import in_one_line

_WIDTH = 110
_SUBJECT = 16


@dataclass(frozen=True)
class Finding:
    """One line of the page.

    Attributes:
        subject: what was looked at, a word or two.
        found: how it is.
        advice: what to do, a sentence; "" where it is well.
        stops: whether a run will end for it.
    """

    subject: str
    found: str
    advice: str = ""
    stops: bool = False

    @property
    def mark(self) -> str:
        """`ok`, `see` where something can be better, or `STOP`."""
        return "STOP" if self.stops else "see" if self.advice else "ok"

    def __str__(self) -> str:
        head = f"{self.mark:<5}{self.subject:<{_SUBJECT}}"
        lines = textwrap.wrap(
            in_one_line(self.found),
            _WIDTH,
            initial_indent=head,
            subsequent_indent=" " * len(head),
            break_on_hyphens=False,
        )
        if self.advice:  # in one line, so that a command in it can be copied
            lines.append(" " * (len(head) - 3) + "-> " + in_one_line(self.advice))
        return "\n".join(lines)


def page(findings: Iterable[Finding]) -> str:
    """Write findings below one another, and what they come to.

    Args:
        findings: in order.

    Returns:
        The text of the page.
    """
    lines = list(findings)
    stops = sum(one.stops for one in lines)
    better = sum(bool(one.advice) for one in lines) - stops
    told = [f"{stops} will stop a run (STOP)"] if stops else []
    told += [f"{better} can be better (see)"] if better else []
    return "\n".join([*map(str, lines), "", ", ".join(told) + "." if told else "All is well."])
