"""The command line of a script whose flags are not all called as the keys of a config."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from paddlemix.configuration.keys import Key, key_table
from paddlemix.configuration.problems import Place, Problem
from paddlemix.configuration.source import Flags, KeyPath, path_name, short

Settings = dict[KeyPath, Any]


@dataclass(frozen=True)
class ScriptFlag:
    """A flag that the config knows by another name.

    Attributes:
        key: what it accepts.
        sets: gives, for a value, those of the config's keys that it stands for, by their path. Raises `ValueError` with
            a sentence where what the value asks for is not there.
    """

    key: Key
    sets: Callable[[Any], Settings]


class ScriptFlags:
    """What a script's command line says, as values of a config's keys.

    A flag that is not given has the script's default, unless one of the keys that it sets is given.

    Args:
        arguments: the command line behind the script's name.
        flags: the flags that are no keys; every key of the config is a flag too.
        defaults: the script's own, by flag.
        script: what errors about those defaults name.
    """

    def __init__(
        self, arguments: Sequence[str], flags: Mapping[str, ScriptFlag], defaults: Mapping[str, Any], script: str
    ) -> None:
        line = Flags(arguments, {**key_table(), **{name: flag.key for name, flag in flags.items()}})
        self._flags, self._script = flags, script
        self._given = {name: value for name, value in line.values.items() if value is not None}
        self.problems = [*line.problems]
        self._setters: dict[KeyPath, str] = {}
        self.values: dict[str, Any] = {}
        for name, value in self._given.items():
            self._set(name, value)
        for name, value in defaults.items():
            if name not in self._given:
                self._set_default(name, value)

    def without(self, name: str) -> ScriptFlags:
        """The same, as though the flag `name`, which is no key, were not there.

        Args:
            name: of the flag.

        Returns:
            Itself.
        """
        for path in [path for path, setter in self._setters.items() if setter == name]:
            del self._setters[path]
            _remove(self.values, path)
        return self

    def place(self, path: KeyPath) -> Place:
        """The flag that gave the value at `path`, or the script where that is its default."""
        name = next((setter for other, setter in self._setters.items() if _overlap(path, other)), str(path[0]))
        is_own_default = name not in self._given and name not in self._flags
        return Place(f"default of {self._script}" if is_own_default else f"--{name}")

    def _set(self, name: str, value: Any) -> None:
        try:
            settings = self._settings(name, value)
        except ValueError as error:
            self.problems.append(Problem(Place(f"--{name}"), str(error)))
            return
        for path, setting in settings.items():
            if others := [setter for other, setter in self._setters.items() if _overlap(path, other)]:
                text = f"--{others[0]} sets `{path_name(path)}` as well; keep one of the two."
                self.problems.append(Problem(Place(f"--{name}"), text))
            else:
                self._store(path, setting, name)

    def _set_default(self, name: str, value: Any) -> None:
        settings = self._settings(name, value)
        if not any(_overlap(path, other) for path in settings for other in self._setters):
            for path, setting in settings.items():
                self._store(path, setting, name)

    def _settings(self, name: str, value: Any) -> Settings:
        if name not in self._flags:
            return {(name,): value}
        key = self._flags[name].key
        if value is not None:
            _check(name, value, key)
        return self._flags[name].sets(value)

    def _store(self, path: KeyPath, value: Any, name: str) -> None:
        self._setters[path] = name
        group = self.values
        for step in path[:-1]:
            group = group.setdefault(str(step), {})
        group[str(path[-1])] = value


def _check(name: str, value: Any, key: Key) -> None:
    try:
        key.check(json.dumps(value))
    except ValidationError:
        raise ValueError(f"`{name}` is {short(value)}; expected {key.expectation}.") from None


def _remove(values: dict[str, Any], path: KeyPath) -> None:
    group = values
    for step in path[:-1]:
        group = group[str(step)]
    del group[str(path[-1])]


def _overlap(one: KeyPath, other: KeyPath) -> bool:
    """Whether one of two paths lies within the other."""
    length = min(len(one), len(other))
    return one[:length] == other[:length]
