"""JSON, read more strictly than Python's: no repeated keys, no NaN, nothing too large or too deep; and paths in it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

# All that follows the parsing walks down recursively; the deepest key that exists is five levels down.
MAX_DEPTH = 20
_TOO_DEEP = f"the JSON is nested more than {MAX_DEPTH} levels deep. Expected a plain object of keys."

KeyPath = tuple[str | int, ...]


def path_name(path: KeyPath) -> str:
    """Write a path as users do, such as `dataset.train[0].name`; keys that are too long for a sentence are cut."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{_cut(step)}" for step in path).removeprefix(".")


class ParsedObject(dict[str, Any]):
    """An object of a file that remembers which of its keys were repeated.

    Args:
        pairs: its keys with their values, as they stand there.
    """

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated = {name: times for name, times in Counter(name for name, _ in pairs).items() if times > 1}


def parse(text: str) -> Any:
    """Parse a text; its objects remember repeated keys.

    Args:
        text: JSON.

    Returns:
        What it holds.

    Raises:
        ValueError: it is no JSON, holds a number that is not finite, or is nested too deep.
    """
    try:
        document = json.loads(
            text, object_pairs_hook=ParsedObject, parse_constant=_refuse_constant, parse_float=read_finite_number
        )
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if _is_deeper_than(MAX_DEPTH, document):
        raise ValueError(_TOO_DEEP)
    return document


def _is_deeper_than(limit: int, document: Any) -> bool:
    level = [document]
    for _ in range(limit):
        level = [child for node in level for _, child in _children(node)]
    return bool(level)


def syntax_sentence(error: json.JSONDecodeError) -> str:
    """Say where a text is no JSON, and what to look for there."""
    return f"not valid JSON at column {error.colno}: {error.msg}. {_advice(error.doc, error.pos)}"


def _advice(text: str, position: int) -> str:
    """Tell what users of JSON's kin write that JSON has not, else where to look.

    Args:
        text: no JSON.
        position: where a parser stopped; newer ones stop at a comma, older ones behind it.

    Returns:
        A sentence.
    """
    here, before = text[position : position + 2], text[:position].rstrip()
    if here in ("//", "/*") or here[:1] == "#":
        return "JSON has no comments: take it out, or write the config in YAML, as config.yaml."
    if (here[:1] in ("}", "]") and before.endswith(",")) or (
        text[position : position + 1] == "," and _closes(text, position)
    ):
        return "JSON has no comma before a closing bracket: take it out."
    if here[:1] == "'":
        return "JSON has double quotes: write \"...\" in place of '...'."
    if text[position:].startswith(("True", "False", "None")):
        return "JSON spells them true, false and null."
    if here[:1].isalpha() and before.endswith(("{", ",")):
        return 'Keys stand in double quotes, as in {"seed": 1}.'
    return "Look for a missing comma, quote or bracket there."


def _closes(text: str, position: int) -> bool:
    return text[position + 1 :].lstrip()[:1] in ("}", "]")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not valid JSON; expected a finite number.")


def read_finite_number(text: str) -> float:
    """Read a number, and raise `ValueError` where it is too large for one."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large for a number; expected a finite one.")
    return number


def repeated_keys(node: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, int]]:
    """Find the keys that a parsed document's objects repeat, and how often each stands there."""
    if isinstance(node, ParsedObject):
        yield from (((*path, name), times) for name, times in node.repeated.items())
    for step, child in _children(node):
        yield from repeated_keys(child, (*path, step))


def _children(node: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(node, dict):
        yield from node.items()
    elif isinstance(node, list):
        yield from enumerate(node)


def without_nulls(node: Any) -> Any:
    """Copy without the null members of objects, since null means the default. Lists keep theirs."""
    if isinstance(node, dict):
        return {name: without_nulls(child) for name, child in node.items() if child is not None}
    if isinstance(node, list):
        return [without_nulls(child) for child in node]
    return node


def short(value: Any) -> str:
    """Write a value as JSON, cut to a length that fits into a sentence."""
    return _cut(json.dumps(value, ensure_ascii=False, default=str))


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
