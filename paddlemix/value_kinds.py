"""Kinds of values that keys of strangers' files take, and the sentence about a value of another kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from paddlemix.bounded_json import finite_number, shown, whole_number


@dataclass(frozen=True)
class Kind:
    """A kind of value.

    Attributes:
        is_right: tells whether a value is of it.
        expected: how messages call it.
    """

    is_right: Callable[[Any], bool]
    expected: str


def whole(least: int, most: int) -> Kind:
    """Describe whole numbers within bounds."""
    return Kind(lambda value: whole_number(value, least, most), f"a whole number from {least} to {most}")


def number(above: float, most: float) -> Kind:
    """Describe numbers above one bound, and at most another."""
    return Kind(
        lambda value: finite_number(value) and above < value <= most, f"a number above {above:g}, at most {most:g}"
    )


def list_of(kind: Kind, *, longest: int) -> Kind:
    """Describe lists of values of a kind."""
    return Kind(
        lambda value: isinstance(value, (list, tuple)) and len(value) <= longest and all(map(kind.is_right, value)),
        f"a list of at most {longest}, each {kind.expected}",
    )


def either(*kinds: Kind) -> Kind:
    """Describe values of one of several kinds."""
    return Kind(
        lambda value: any(kind.is_right(value) for kind in kinds), ", or ".join(kind.expected for kind in kinds)
    )


FLAG = Kind(lambda value: isinstance(value, bool), "true or false")
TEXT = Kind(lambda value: isinstance(value, str), "a text")
OBJECT = Kind(lambda value: isinstance(value, Mapping), "an object")


def kind_problem(values: Mapping[str, Any], kinds: Mapping[str, Kind], *, section: str = "") -> str | None:
    """Say which value is of another kind than its key takes.

    Args:
        values: of a file, or of one of its sections; nulls say nothing.
        kinds: by key; other keys are not looked at.
        section: the section's name and a point, for the message.

    Returns:
        A sentence that names the key; None where all are right.
    """
    for name, kind in kinds.items():
        value = values.get(name)
        if value is not None and not kind.is_right(value):
            return f"`{section}{name}` is {shown(value)}; expected {kind.expected}."
    return None
