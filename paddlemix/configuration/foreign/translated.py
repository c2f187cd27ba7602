"""A source of keys in which those of other systems are ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from paddlemix.configuration.foreign.rows import ForeignKey, as_json
from paddlemix.configuration.foreign.table import FOREIGN_KEYS
from paddlemix.configuration.keys import key_table
from paddlemix.configuration.problems import Place, Problem
from paddlemix.configuration.reading.source import Source
from paddlemix.configuration.reading.strict_json import KeyPath, short


class Translated:
    """What a source gives, with ours in place of other systems' keys that mean the same.

    Args:
        source: a file, a command line.

    Attributes:
        values: by our keys, and by those that nobody knows.
        problems: the source's, and the keys that are not taken.
        notes: a sentence for each key that is taken for one of ours, and one for all that ask for nothing.
    """

    values: dict[str, Any]
    problems: list[Problem]
    notes: list[str]

    def __init__(self, source: Source) -> None:
        self._source = source
        self._theirs: dict[str, str] = {}
        self._idle: list[str] = []
        self.problems = [*source.problems]
        self.notes = []
        self.values = {name: value for name, value in source.values.items() if not _is_foreign(name, value)}
        for name, value in source.values.items():
            if _is_foreign(name, value):
                self._take(FOREIGN_KEYS[name], value)
        if self._idle:
            self.notes.append(f"Taken for what is done anyway, or changes no result: {', '.join(self._idle)}.")

    def place(self, path: KeyPath) -> Place:
        """Tell where the value at `path` was given, and by which name where that is not ours."""
        theirs = self._theirs.get(str(path[0]))
        if theirs is None:
            return self._source.place(path)
        place = self._source.place((theirs, *path[1:]))
        return place if place.source == f"--{theirs}" else replace(place, name=theirs)

    def _take(self, row: ForeignKey, value: Any) -> None:
        place, settings = self._source.place((row.name,)), row.read(value)
        if settings is None and value is not None:
            shown = "" if row.name.endswith("token") else f" (value {short(value)})"  # a token is a secret
            text = f"unknown key `{row.name}`{shown}. {row.advice}".rstrip()
            self.problems.append(Problem(place, text))
            return
        if not settings:
            self._idle += [] if value is None else [f"`{row.name}`"]
            return
        if clash := [ours for ours, here in settings.items() if self._differs(ours, here)]:
            self.problems.append(Problem(place, self._clash(row, value, settings, clash[0])))
            return
        for ours, here in settings.items():
            if ours not in self.values:
                self._theirs[ours] = row.name
            self.values[ours] = here
        if value is not None:
            here = " and ".join(f"`{ours}`: {short(given)}" for ours, given in settings.items())
            note = row.note if row.noted in ("", as_json(value)) else ""
            self.notes.append(f"{place}: `{row.name}` is taken as {here}. {note}".rstrip())

    def _differs(self, ours: str, here: Any) -> bool:
        return ours in self.values and as_json(self.values[ours]) != as_json(here)

    def _clash(self, row: ForeignKey, value: Any, settings: Mapping[str, Any], ours: str) -> str:
        other = self._theirs.get(ours)
        given = f"`{ours}` (by `{other}`)" if other else f"`{ours}`"
        return (
            f"`{row.name}` is {short(value)}, which is `{ours}`: {short(settings[ours])} here, but {given} is given as "
            f"{short(self.values[ours])}. Keep one of the two."
        )


def _is_foreign(name: str, value: Any) -> bool:
    """Tell whether a key is another system's, or one of ours with a value that another system gives it."""
    row = FOREIGN_KEYS.get(name)
    return row is not None and (name not in key_table() or as_json(value) in row.settings)
