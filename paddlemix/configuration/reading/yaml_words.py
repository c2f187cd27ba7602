"""What a plain scalar of YAML means, by the type of the key that it is given for.

YAML 1.1, which Python's and most other readers follow, takes `no` for false, `010` for 8, `1:30` for 90 and `1e-5` for
text; YAML 1.2 does not. Here the key decides: a strategy may be `no`, a switch may be `yes`, and a name may be `007`.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from paddlemix.configuration.keys import kinds

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUTHS = {"true": True, "false": False}
_WORDS = {"yes": True, "no": False, "on": True, "off": False}
_LETTERS = {"y": True, "n": False}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*\.[0-9_]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")
_NOT_FINITE = re.compile(r"[-+]?\.inf|\.nan", re.IGNORECASE)


def meaning(text: str, key: FieldInfo) -> Any:
    """Read a plain scalar.

    Args:
        text: the scalar.
        key: what is expected in its place; of any type where that is not known.

    Returns:
        None, a boolean, a number or a text. One of another type than is expected is left for the check of all values.

    Raises:
        ValueError: with what is wrong, the value first: it is read in several ways, or is no finite number.
    """
    allowed = kinds(key.annotation)
    if text in _NULLS:
        return None
    if any(text in get_args(kind) for kind in allowed if get_origin(kind) is Literal):
        return text
    takes_text = any(kind is str or get_origin(kind) is Literal for kind in allowed)
    truth = _truth(text, takes_switch=bool in allowed, takes_any=Any in allowed)
    if truth is not None and (bool in allowed or not takes_text):
        return truth
    if text == "None":
        raise ValueError("None, which YAML takes for text. Write null for the default, or put it in quotes.")
    if takes_text and not {int, float} & set(allowed):
        return text
    return _number(text)


def _truth(text: str, *, takes_switch: bool, takes_any: bool) -> bool | None:
    words = dict(_TRUTHS)
    if takes_switch or takes_any:
        words |= _WORDS
    if takes_switch:
        words |= _LETTERS
    return words.get(text.lower())


def _number(text: str) -> Any:
    if _LEADING_ZERO.fullmatch(text):
        digits = text.replace("_", "").lstrip("+-")
        raise ValueError(f"{text}, {_octal(digits)} Write the number without a 0 in front, or put a text in quotes.")
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text}; expected a finite number.")
    if _INTEGER.fullmatch(text):
        return int(text, 0)
    if not _FLOAT.fullmatch(text):
        return text
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text}, which is too large for a number; expected a finite one.")
    return number


def _octal(digits: str) -> str:
    try:
        return f"which YAML 1.1 reads as {int(digits, 8)} and YAML 1.2 as {int(digits)}."
    except ValueError:
        return "which YAML 1.1 takes for text."
