"""A config file in JSON."""

from __future__ import annotations

import json
from typing import Any

import json_source_map

from paddlemix.configuration.problems import ConfigError, Place, Problem
from paddlemix.configuration.reading.strict_json import (
    KeyPath,
    parse,
    path_name,
    repeated_keys,
    syntax_sentence,
    without_nulls,
)
from paddlemix.configuration.reading.text import read_text, required_object


class JsonFile:
    """The keys of a JSON file.

    Args:
        path: the file.

    Raises:
        ConfigError: it cannot be read, is not JSON, or does not hold an object.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        text = read_text(path)
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


def _parse_file(text: str, path: str) -> dict[str, Any]:
    try:
        document = parse(text)
    except json.JSONDecodeError as error:
        raise ConfigError([Problem(Place(path, error.lineno), syntax_sentence(error))]) from None
    except ValueError as error:
        raise ConfigError([Problem(Place(path), str(error))]) from None
    return required_object(document, path, '{ "key": value, ... }')


def _pointer(path: KeyPath) -> str:
    # json_source_map takes keys as they are spelled between the quotes; nothing in them is escaped anew.
    return "".join(f"/{step}" for step in path)
