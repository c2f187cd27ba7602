"""What a user wrote in several places, as raw values that know theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from paddlemix.configuration.problems import Place, Problem
from paddlemix.configuration.reading.strict_json import KeyPath


class Source(Protocol):
    """Anything that gave values for keys."""

    values: dict[str, Any]
    problems: list[Problem]

    def place(self, path: KeyPath) -> Place:
        """Tell where the value at `path` was given, or the nearest thing around it."""
        ...


@dataclass(frozen=True)
class Given:
    """All that was given; later sources take precedence, and a null gives a key its default again.

    Attributes:
        values: raw value by key; keys that were not given, or given as null, are absent.
        sources: the source of each value that was given.
    """

    values: dict[str, Any]
    sources: dict[str, Source]

    @classmethod
    def from_sources(cls, *sources: Source) -> Given:
        """Join sources; the last one that gives a key takes precedence."""
        values: dict[str, Any] = {}
        winners: dict[str, Source] = {}
        for source in sources:
            for name, value in source.values.items():
                values[name] = value
                winners[name] = source
        return cls({name: value for name, value in values.items() if value is not None}, winners)

    def place(self, path: KeyPath) -> Place:
        """Tell where the value at `path` was given."""
        return self.sources[str(path[0])].place(path)
