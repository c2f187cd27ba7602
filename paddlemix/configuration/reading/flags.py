"""A command line's flags."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from paddlemix.configuration.keys import expectation, kinds, nearest
from paddlemix.configuration.problems import Place, Problem
from paddlemix.configuration.reading.strict_json import (
    KeyPath,
    parse,
    path_name,
    read_finite_number,
    repeated_keys,
    syntax_sentence,
    without_nulls,
)

# How many problems are told: to look for what a key may have meant takes time.
_EXPLAINED = 50


class Flags:
    """The keys of a command line's `--key value` and `--key=value` flags.

    Args:
        arguments: the command line after the config file.
        known: all known keys.
    """

    def __init__(self, arguments: Sequence[str], known: Mapping[str, FieldInfo]) -> None:
        self.values: dict[str, Any] = {}
        self.problems: list[Problem] = []
        for name, words in self._split(arguments):
            if len(self.problems) >= _EXPLAINED:
                text = f"--{name} and what follows it was not looked at; correct what comes before first."
                self.problems.append(Problem(Place("command line"), text))
                break
            try:
                self._add(name, words, known)
            except ValueError as error:
                self.problems.append(Problem(self.place((name,)), str(error)))

    def place(self, path: KeyPath) -> Place:
        """Tell the flag that gave the value at `path`."""
        return Place(f"--{path[0]}")

    def _split(self, arguments: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
        """Give each flag's name with the words behind it."""
        words = list(arguments)
        while words:
            word = words.pop(0)
            if not word.startswith("--"):
                self.problems.append(_stray(word))
                while word.startswith("-") and words and not words[0].startswith("-"):
                    words.pop(0)  # what was to be its value
                continue
            name, equals, text = word[2:].partition("=")
            values = [text] if equals else []
            if not equals and words and not words[0].startswith("--"):
                values.append(words.pop(0))
            while values and words and not words[0].startswith("-"):
                values.append(words.pop(0))
            yield name, values

    def _add(self, name: str, words: list[str], known: Mapping[str, FieldInfo]) -> None:
        if name not in known:
            raise ValueError(f"unknown key `{name}`. {nearest(name, known)}")
        if name in self.values:
            raise ValueError(f"`{name}` is given more than once; keep one of them.")
        if _is_list_of_words(words, known[name]):
            self.values[name] = words
            return
        self.problems += map(_stray, words[1:])
        self.values[name] = without_nulls(_read_flag(words[0] if words else None, known[name]))


def _stray(word: str) -> Problem:
    name = word.lstrip("-")
    text = f"it belongs to no key. Write --key {name}, and put quotes around values with spaces."
    if name != word and not name[:1].isdigit():
        text = f"it is no flag. Names of keys stand behind two dashes: --{name}."
    return Problem(Place(f"argument `{word}`"), text)


def _is_list_of_words(words: Sequence[str], key: FieldInfo) -> bool:
    """Tell whether words are the items of a list of texts, as other programs write one: `--target_modules a b`."""
    if len(words) < 2 or words[0][:1] in ("[", "{"):
        return False
    return any(get_origin(kind) is list and str in kinds(get_args(kind)[0]) for kind in kinds(key.annotation))


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
    if text is None and (bool in allowed or Any in allowed):
        return True
    if text is None:
        raise ValueError(f"no value follows it; expected {expectation(key)}.")
    if text == "null":
        return None
    if (bool in allowed or Any in allowed) and text.lower() in ("true", "false"):
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
