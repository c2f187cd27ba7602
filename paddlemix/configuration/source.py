"""What a user wrote, in a JSON file and on the command line, as raw values that know their places."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_origin

import json_source_map
from pydantic.fields import FieldInfo

from paddlemix.configuration.keys import expectation, kinds, nearest
from paddlemix.configuration.problems import ConfigError, Place, Problem
from paddlemix.configuration.strict_json import (
    KeyPath,
    parse,
    path_name,
    read_finite_number,
    repeated_keys,
    short,
    syntax_sentence,
    without_nulls,
)


class Source(Protocol):
    """Anything that gave values for keys."""

    values: dict[str, Any]
    problems: list[Problem]

    def place(self, path: KeyPath) -> Place:
        """Tell where the value at `path` was given, or the nearest thing around it."""
        ...


class JsonFile:
    """The keys of a JSON file.

    Args:
        path: the file.

    Raises:
        ConfigError: it cannot be read, is not JSON, or does not hold an object.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        text = _read_text(path)
        document = _parse_file(text, path)
        self._map = json_source_map.calculate(text)
        self.problems = [
            Problem(self.place(where), f"`{path_name(where)}` is given {times} times; keep one of them.")
            for where, times in repeated_keys(document)
        ]
        self.values = without_nulls(document)

    def place(self, path: KeyPath) -> Place:
        """Tell the line of the key or list item at `path`, or of what is around it."""
        for length in range(len(path), 0, -1):
            entry = self._map.get(_pointer(path[:length]))
            if entry is not None:
                return Place(self.path, (entry.key_start or entry.value_start).line + 1)
        return Place(self.path)


class Flags:
    """The keys of a command line's `--key value` and `--key=value` flags.

    Args:
        arguments: the command line after the config file.
        known: all known keys.
    """

    def __init__(self, arguments: Sequence[str], known: Mapping[str, FieldInfo]) -> None:
        self.values: dict[str, Any] = {}
        self.problems: list[Problem] = []
        for name, text in self._split(arguments):
            try:
                self._add(name, text, known)
            except ValueError as error:
                self.problems.append(Problem(self.place((name,)), str(error)))

    def place(self, path: KeyPath) -> Place:
        """Tell the flag that gave the value at `path`."""
        return Place(f"--{path[0]}")

    def _split(self, arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
        words = list(arguments)
        while words:
            word = words.pop(0)
            if not word.startswith("--"):
                text = f"it belongs to no key. Write --key {word}, and put quotes around values with spaces."
                self.problems.append(Problem(Place(f"argument `{word}`"), text))
                continue
            name, equals, text = word[2:].partition("=")
            if equals:
                yield name, text
            else:
                yield name, words.pop(0) if words and not words[0].startswith("--") else None

    def _add(self, name: str, text: str | None, known: Mapping[str, FieldInfo]) -> None:
        if name not in known:
            raise ValueError(f"unknown key `{name}`. {nearest(name, known)}")
        if name in self.values:
            raise ValueError(f"`{name}` is given more than once; keep one of them.")
        self.values[name] = without_nulls(_read_flag(text, known[name]))


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


def _read_text(path: str) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        text = f"cannot be read: {error.strerror}. Expected the path of a JSON config."
    except UnicodeDecodeError as error:
        text = f"is not UTF-8: byte {error.start} is wrong. Save it as UTF-8."
    raise ConfigError([Problem(Place(path), text)])


def _parse_file(text: str, path: str) -> dict[str, Any]:
    try:
        document = parse(text)
    except json.JSONDecodeError as error:
        raise ConfigError([Problem(Place(path, error.lineno), syntax_sentence(error))]) from None
    except ValueError as error:
        raise ConfigError([Problem(Place(path), str(error))]) from None
    if not isinstance(document, dict):
        text = f'holds {short(document)}; expected an object: {{ "key": value, ... }}.'
        raise ConfigError([Problem(Place(path, 1), text)])
    return document


def _pointer(path: KeyPath) -> str:
    # json_source_map takes keys as they are spelled between the quotes; nothing in them is escaped anew.
    return "".join(f"/{step}" for step in path)


def _read_flag(text: str | None, key: FieldInfo) -> Any:
    """Read a flag's value by its key's type. What does not fit is left for the check of all values.

    Args:
        text: what follows the flag, None if nothing does.
        key: what the key accepts.

    Returns:
        The raw value.

    Raises:
        ValueError: the value is missing, or is broken JSON.
    """
    allowed = kinds(key.annotation)
    if text is None and bool in allowed:
        return True
    if text is None:
        raise ValueError(f"no value follows it; expected {expectation(key)}.")
    if text == "null":
        return None
    if bool in allowed and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text[:1] in ("[", "{") and not all(map(_is_text, allowed)):
        return _read_json_flag(text)
    return text if any(map(_is_text, allowed)) else _read_number(text)


def _is_text(kind: Any) -> bool:
    return kind is str or get_origin(kind) is Literal


def _read_json_flag(text: str) -> Any:
    try:
        value = parse(text)
    except json.JSONDecodeError as error:
        raise ValueError(syntax_sentence(error)) from None
    repeated = [path_name(path) for path, _ in repeated_keys(value)]
    if repeated:
        raise ValueError(f"keys given more than once: {', '.join(repeated)}; keep one of each.")
    return value


def _read_number(text: str) -> Any:
    for read in (int, read_finite_number):
        try:
            return read(text)
        except ValueError:
            continue
    return text
