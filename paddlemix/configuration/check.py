"""Checks each value of a config by itself: is its key known, its type right, is it within its limits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from paddlemix.configuration.foreign.table import FOREIGN_KEYS
from paddlemix.configuration.keys import config_model, expectation, items, key_table, members, nearest, read_json
from paddlemix.configuration.problems import Place, Problem
from paddlemix.configuration.reading.source import Given
from paddlemix.configuration.reading.strict_json import KeyPath, path_name, short

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# pydantic's objections to the value of each key, by the path to what is wrong.
_Wrong = dict[str, dict[KeyPath, str]]
_HAS_ZERO, _TOO_LARGE = "has_zero", "too_large"
_OF_ALL_KEYS = {
    _HAS_ZERO: "no text of a config holds the character \\u0000, take it out",
    _TOO_LARGE: "expected no whole number beyond 2^63",
}
_ZERO_CHARACTER, _LONG_NUMBER = re.compile(r"(?<!\\)(?:\\\\)*\\u0000"), re.compile(r"\d{19}")
_LARGEST = 2**63 - 1
# How many of them become sentences.
_EXPLAINED = 50


def check_values(given: Given, path: str) -> tuple[dict[str, Any], list[Problem]]:
    """Check each given value by itself, and give the other keys their defaults.

    Args:
        given: what was given, key by key.
        path: the config file, which lacks what is missing.

    Returns:
        The values of all keys but the wrong and the missing ones, and what is wrong with the rest.
    """
    wrong = _find_wrong(given.values)
    missing = [name for name, key in key_table().items() if key.is_required() and name not in given.values]
    explained, untold = _first_of(wrong)
    sound = {name: value for name, value in given.values.items() if name not in wrong}
    values = dict(config_model().model_validate_json(json.dumps(sound)))
    problems = [problem for name, found in explained.items() for problem in _explain(name, found, given)]
    if untold:
        problems.append(Problem(Place(path), f"{untold:,} more keys or values are wrong; correct these first."))
    problems += [
        Problem(
            Place(path), f"`{name}` is missing; expected {expectation(key_table()[name])}. Add it, or give --{name}."
        )
        for name in missing
    ]
    return {name: value for name, value in values.items() if name not in {*wrong, *missing}}, problems


def _first_of(wrong: _Wrong) -> tuple[_Wrong, int]:
    """Take the first objections, as many as are worth reading: to look for what a key may have meant takes time.

    Args:
        wrong: what `_find_wrong` returns.

    Returns:
        Those, and how many others there are.
    """
    taken: _Wrong = {}
    room = _EXPLAINED
    for name, found in wrong.items():
        if room:
            taken[name] = dict(islice(found.items(), room))
            room -= len(taken[name])
    return taken, sum(map(len, wrong.values())) - (_EXPLAINED - room)


def _find_wrong(values: Mapping[str, Any]) -> _Wrong:
    """Let pydantic look at all values.

    Args:
        values: raw, by key.

    Returns:
        For each wrong key, in the order in which they were given, pydantic's objections by the path to what is wrong.
    """
    wrong: _Wrong = {name: {} for name in values}
    readable = {}
    for name, value in values.items():
        if name not in key_table():
            wrong[name] = {(name,): "extra_forbidden"}
        elif (problem := _unreadable(value)) is not None:
            wrong[name] = {(name,): problem}
        else:
            readable[name] = value
    try:
        config_model().model_validate_json(json.dumps(readable))
    except ValidationError as error:
        for each in error.errors():
            wrong[str(each["loc"][0])].setdefault(_path_to(each), each["type"])
    return {name: found for name, found in wrong.items() if found}


def _unreadable(value: Any) -> str | None:
    """Tell of what kind an objection to a value is that holds for all keys; None where there is none.

    Half of a surrogate pair is broken JSON to pydantic, the character of number 0 ends every path, and of no key a
    larger number means anything.
    """
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return "json_invalid"
    if _ZERO_CHARACTER.search(text):
        return _HAS_ZERO
    if _LONG_NUMBER.search(text) and any(abs(number) > _LARGEST for number in _whole_numbers(value)):
        return _TOO_LARGE
    return None


def _whole_numbers(value: Any) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _whole_numbers(inner)


def _explain(name: str, found: Mapping[KeyPath, str], given: Given) -> Iterator[Problem]:
    """Write one problem for each place inside a key's value that pydantic objects to."""
    for path, kind in found.items():
        if any(other != path and other[: len(path)] == path for other in found):
            continue  # one type of a union objects to the whole, another to a part of it: the part says more
        value = None if kind == "missing" else _value_at(given.values[name], path[1:])
        yield Problem(given.place(path), _sentence(path, kind, value))


def _sentence(path: KeyPath, kind: str, value: Any) -> str:
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        known = key_table() if len(path) == 1 else members(_key_at(path[:-1]))
        advice = _others_advice(path[-1]) or nearest(str(path[-1]), known)
        return f"unknown key `{path_name(path)}` (value {short(value)}). {advice}"
    key = _key_at(path)
    if kind == "missing":
        return f"`{path_name(path)}` is missing; expected {expectation(key)}."
    if kind in _OF_ALL_KEYS:
        return f"`{path_name(path)}` is {short(value)}; {_OF_ALL_KEYS[kind]}."
    hint = _quotes_hint(value, key) or _others_hint(path)
    return f"`{path_name(path)}` is {short(value)}; expected {expectation(key)}.{hint}"


def _others_advice(name: str | int) -> str:
    """Say what to do in place of a key of another system; nothing where no system has it."""
    row = FOREIGN_KEYS.get(str(name))
    return row.advice if row else ""


def _others_hint(path: KeyPath) -> str:
    """Say what to do in place of a value that another system gives to a key of ours."""
    advice = _others_advice(path[0]) if len(path) == 1 else ""
    return f" {advice}" if advice else ""


def _path_to(error: ErrorDetails) -> KeyPath:
    """Take the names of union members that stand between the steps out of pydantic's location."""
    name, *steps = error["loc"]
    key = key_table()[str(name)]
    path = [name]
    for place, step in enumerate(steps, 1):
        if isinstance(step, int):
            key = items(key)
        elif step in members(key):
            key = members(key)[step]
        elif error["type"] != "unexpected_keyword_argument" or place < len(steps):
            continue
        path.append(step)
    return tuple(path)


def _value_at(value: Any, path: KeyPath) -> Any:
    for step in path:
        value = value[step]
    return value


def _key_at(path: KeyPath) -> FieldInfo:
    key = key_table()[str(path[0])]
    for step in path[1:]:
        key = items(key) if isinstance(step, int) else members(key)[step]
    return key


def _quotes_hint(value: Any, key: FieldInfo) -> str:
    if not isinstance(value, str):
        return ""
    try:
        read_json(key, value.lower())
    except ValidationError:
        return ""
    return f" Drop the quotes: {value.lower()}"
