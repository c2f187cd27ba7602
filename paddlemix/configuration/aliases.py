"""The command line of a script that calls some of the config's keys by other names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import eq
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from paddlemix.configuration.foreign.table import readable_keys
from paddlemix.configuration.keys import expectation, read_json
from paddlemix.configuration.problems import Place, Problem
from paddlemix.configuration.reading.flags import Flags
from paddlemix.configuration.reading.strict_json import KeyPath, path_name, short

Settings = dict[KeyPath, Any]


@dataclass(frozen=True)
class Alias:
    """A flag that the config knows by another name.

    Attributes:
        annotation: the type of its value.
        default: where the flag is not given.
        help: what it is for.
        sets: gives the values of the config's keys, by their path, that a value stands for beside the other flags'
            values. Raises `ValueError` with a sentence where what the value asks for is not there.
    """

    annotation: Any
    default: Any
    help: str
    sets: Callable[[Any, Mapping[str, Any]], Settings]

    @property
    def key(self) -> FieldInfo:
        """What the flag accepts."""
        return FieldInfo(annotation=self.annotation, default=self.default, description=self.help)


class AliasedFlags:
    """What a script's command line says, as values of a config's keys.

    A flag that is not given has the script's default, unless one of the keys that it sets is given.

    Args:
        arguments: the command line after the script's name.
        aliases: the flags that are no keys; every key of the config is a flag too.
        defaults: the script's own, by flag.
        script: what errors about those defaults name.
    """

    def __init__(
        self, arguments: Sequence[str], aliases: Mapping[str, Alias], defaults: Mapping[str, Any], script: str
    ) -> None:
        line = Flags(arguments, {**readable_keys(), **{name: alias.key for name, alias in aliases.items()}})
        self._aliases, self._script, self.problems = aliases, script, [*line.problems]
        self._given = {name: value for name, value in line.values.items() if value is not None}
        self._setters: dict[KeyPath, str] = {}
        self.values: dict[str, Any] = {}
        for name, value in self._given.items():
            try:
                self._set(name, self._settings(name, value))
            except ValueError as error:
                self.problems.append(Problem(Place(f"--{name}"), str(error)))
        for name, value in defaults.items():
            settings = {} if name in self._given else self._settings(name, value)
            if not any(map(self._setter, settings)):
                self._set(name, settings)

    def place(self, path: KeyPath) -> Place:
        """Tell the flag that gave the value at `path`, or the script where that is its default."""
        name = self._setter(path) or str(path[0])
        is_own_default = name not in self._given and name not in self._aliases
        return Place(f"default of {self._script}" if is_own_default else f"--{name}")

    def _setter(self, path: KeyPath) -> str | None:
        """Find the flag that set the value at a path, something in it or something around it."""
        return next((name for other, name in self._setters.items() if all(map(eq, path, other))), None)

    def _settings(self, name: str, value: Any) -> Settings:
        if name not in self._aliases:
            return {(name,): value}
        alias = self._aliases[name]
        try:
            if value is not None:
                read_json(alias.key, json.dumps(value))
        except ValidationError:
            raise ValueError(f"`{name}` is {short(value)}; expected {expectation(alias.key)}.") from None
        return alias.sets(value, self._given)

    def _set(self, name: str, settings: Settings) -> None:
        for path, value in settings.items():
            if other := self._setter(path):
                text = f"--{other} sets `{path_name(path)}` as well; keep one of the two."
                self.problems.append(Problem(Place(f"--{name}"), text))
                continue
            self._setters[path] = name
            group = self.values
            for step in path[:-1]:
                group = group.setdefault(str(step), {})
            group[str(path[-1])] = value
