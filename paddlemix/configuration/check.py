"""Checks each value of a config by itself: is its key known, its type right, is it within its limits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from paddlemix.configuration.keys import Key, items, key_table, members, nearest
from paddlemix.configuration.problems import Place, Problem
from paddlemix.configuration.source import Given, KeyPath, path_name, short

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def check_values(given: Given) -> tuple[dict[str, Any], list[Problem]]:
    """Check each given value by itself.

    Args:
        given: what was given, key by key.

    Returns:
        The values of the right type and within their limits, and what is wrong with the others.
    """
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, value in given.values.items():
        if name not in key_table():
            problems.append(_unknown((name,), value, given))
            continue
        try:
            values[name] = key_table()[name].check(json.dumps(value))
        except ValidationError as error:
            problems += _explain(name, value, error, given)
    return values, problems


def find_missing(given: Given, path: str) -> list[Problem]:
    """Look for required keys that were not given.

    Args:
        given: what was given, key by key.
        path: the config file.

    Returns:
        One problem for each of them.
    """
    return [
        Problem(Place(path), f"`{name}` is missing; expected {key.expectation}. Add it, or give --{name}.")
        for name, key in key_table().items()
        if key.required and name not in given.values
    ]


def _explain(name: str, value: Any, error: ValidationError, given: Given) -> Iterator[Problem]:
    """One problem for each place inside a key's value that pydantic objects to."""
    found: dict[KeyPath, str] = {}
    for each in error.errors():
        found.setdefault(_path_to(name, each), each["type"])
    for path, kind in found.items():
        if any(other != path and other[: len(path)] == path for other in found):
            continue  # one type of a union objects to the whole, another to a part of it: the part says more
        if kind == "missing":
            yield _missing(path, given)
        elif kind == "unexpected_keyword_argument":
            yield _unknown(path, _value_at(value, path[1:]), given)
        else:
            yield _unfit(path, _value_at(value, path[1:]), given)


def _path_to(name: str, error: ErrorDetails) -> KeyPath:
    """Pydantic's location without the names of union members that stand between the steps."""
    key = key_table()[name]
    path: list[str | int] = [name]
    for step in error["loc"]:
        if isinstance(step, int):
            key = items(key)
        elif step in members(key):
            key = members(key)[step]
        elif error["type"] != "unexpected_keyword_argument":
            continue
        path.append(step)
    return tuple(path)


def _value_at(value: Any, path: KeyPath) -> Any:
    for step in path:
        value = value[step]
    return value


def _key_at(path: KeyPath) -> Key:
    key = key_table()[str(path[0])]
    for step in path[1:]:
        key = items(key) if isinstance(step, int) else members(key)[step]
    return key


def _unknown(path: KeyPath, value: Any, given: Given) -> Problem:
    known = key_table() if len(path) == 1 else members(_key_at(path[:-1]))
    return Problem(
        given.place(path),
        f"unknown key `{path_name(path)}` (value {short(value)}). {nearest(str(path[-1]), known)}",
    )


def _missing(path: KeyPath, given: Given) -> Problem:
    return Problem(given.place(path), f"`{path_name(path)}` is missing; expected {_key_at(path).expectation}.")


def _unfit(path: KeyPath, value: Any, given: Given) -> Problem:
    key = _key_at(path)
    text = f"`{path_name(path)}` is {short(value)}; expected {key.expectation}."
    return Problem(given.place(path), text + _quotes_hint(value, key))


def _quotes_hint(value: Any, key: Key) -> str:
    if not isinstance(value, str):
        return ""
    try:
        key.check(value.lower())
    except ValidationError:
        return ""
    return f" Drop the quotes: {value.lower()}"
