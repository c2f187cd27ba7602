"""Problems of a config, each with its place, and the one error that lists them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where something was given.

    Attributes:
        source: a file, or a command line flag.
        line: of the file; None for the whole of it.
        name: of the key there, where it is not the one that a problem is about.
    """

    source: str
    line: int | None = None
    name: str | None = None

    def __str__(self) -> str:
        line = "" if self.line is None else f":{self.line}"
        return f"{self.source}{line}{f' (`{self.name}`)' if self.name else ''}"


@dataclass(frozen=True)
class Problem:
    """What is wrong at a place, what was expected and what to change."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


class ConfigError(ValueError):
    """A config that cannot be used.

    Args:
        problems: everything that is wrong with it; listed by line, then what has no line.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda each: (each.place.line is None, each.place.line or 0)))
        super().__init__(self.problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return str(self.problems[0])
        return "\n  ".join([f"{len(self.problems)} problems in the config:", *map(str, self.problems)])
