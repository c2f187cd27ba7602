"""JSON of strangers, read within bounds: what is refused is refused before it takes time or memory."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# Deeper than any published file, and far from where Python's own recursion ends.
MAX_DEPTH = 64
# Half of a pair that UTF-16 has for one character: no text in any encoding, though JSON can spell it.
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPELLED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_MEGABYTE = 2**20


@dataclass(frozen=True)
class JsonLimits:
    """How much a file may hold.

    Attributes:
        size: bytes.
        values: commas and opening brackets, those inside of texts too: at least as many as there are values. Each value
            takes up to 70 bytes of memory, however short it is in the file.
    """

    size: int
    values: int


# The largest published tokenizer_config.json has 1.2 MB and 45,000 of them; a config has a few hundred.
SETTINGS = JsonLimits(4 * _MEGABYTE, 200_000)
# Vocabulary and merges: 11 MB and 650,000 of Qwen's, three times as many of the largest of other families.
VOCABULARY = JsonLimits(64 * _MEGABYTE, 3_000_000)

# What a run writes for itself: a dozen values a step that is logged, and some for each file of records.
OWN_STATES = JsonLimits(512 * _MEGABYTE, 2**25)


def parse_json_object(content: bytes, place: object, limits: JsonLimits = SETTINGS) -> dict[str, Any]:
    """Parse the JSON object that a file holds.

    Args:
        content: of the file, UTF-8 text with a byte order mark in front of it or not.
        place: how errors call the file.
        limits: how much it may hold.

    Returns:
        The object. Its texts are text in any encoding, its numbers finite, and no key stands in an object twice.

    Raises:
        ValueError: it is no such object; the message names file and key, or file and line.
    """
    check_file_size(len(content), place, limits)
    values = content.count(b",") + content.count(b"[") + content.count(b"{")
    if values > limits.values:
        raise ValueError(
            f"{place}: holds {values} commas and opening brackets; expected at most {limits.values}. Fetch the file "
            "again from a source that you trust."
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = content[error.start]
        raise ValueError(f"{place}: not UTF-8 text: byte {error.start} is 0x{byte:02x}.") from error
    reading = _Reading()
    try:
        document = json.loads(
            text, object_pairs_hook=reading.object_of, parse_float=reading.number, parse_constant=reading.number
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}:{error.lineno}: not valid JSON: {error.msg}.") from error
    except RecursionError:
        raise ValueError(_too_deep(place)) from None
    except ValueError as error:  # Python reads no whole number of more than 4300 digits
        raise ValueError(f"{place}: holds a whole number of thousands of digits; no key takes such.") from error
    if not isinstance(document, dict):
        raise ValueError(f"{place}: a JSON object was expected, not a {type(document).__name__}.")
    if reading.repeated is not None:
        raise ValueError(f"{place}: the key {shown(reading.repeated)} stands twice in one object; leave one of them.")
    if _is_deeper_than(MAX_DEPTH, document):
        raise ValueError(_too_deep(place))
    if reading.is_odd or _SPELLED_SURROGATE.search(content):
        _refuse_odd_values(document, place)
    return document


def check_file_size(size: int, place: object, limits: JsonLimits = SETTINGS) -> None:
    """Refuse a file by its size alone, before any of it is read.

    Args:
        size: bytes.
        place: how errors call the file.
        limits: how much it may hold.

    Raises:
        ValueError: it is larger than allowed.
    """
    if size > limits.size:
        raise ValueError(
            f"{place}: {size} bytes; expected at most {limits.size} of a file of this kind. Fetch the file again from "
            "a source that you trust."
        )


def shown(value: Any) -> str:
    """Write a value of a file for a message: as JSON in ASCII, on one line, cut to 80 characters."""
    text = json.dumps(_outline(value), default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def without_surrogates(text: str) -> bool:
    """Tell whether a text is one in any encoding, as texts from outside of JSON files may not be."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def whole_number(value: Any, least: int, most: int) -> bool:
    """Tell whether a value is a whole number within bounds; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def finite_number(value: Any) -> bool:
    """Tell whether a value is a number that a float holds; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


class _Reading:
    """What is noticed while a text is parsed.

    Attributes:
        repeated: the first key that stands twice in one object.
        is_odd: whether a number is none that a float holds.
    """

    repeated: str | None
    is_odd: bool

    def __init__(self) -> None:
        self.repeated, self.is_odd = None, False

    def object_of(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs) and self.repeated is None:
            self.repeated = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        return found

    def number(self, text: str) -> float:
        value = float(text)
        self.is_odd = self.is_odd or not math.isfinite(value)
        return value


def _too_deep(place: object) -> str:
    return f"{place}: nested more than {MAX_DEPTH} levels deep; expected an object of settings."


def _is_deeper_than(limit: int, document: Any) -> bool:
    level = [document]
    for _ in range(limit):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (dict, list))
        ]
    return bool(level)


def _refuse_odd_values(document: dict[str, Any], place: object) -> None:
    """Refuse texts that no encoding has, and numbers that are none."""
    for key, value in _values(document):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{place}: `{key}` is {value}; expected a finite number.")
        if isinstance(value, str) and _SURROGATE.search(value):
            raise ValueError(
                f"{place}: `{key}` holds half of a surrogate pair, {shown(value)}, which is no text; spell the whole "
                "character."
            )


def _values(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """List all keys and values with the way to each; `MAX_DEPTH` bounds the recursion."""
    if isinstance(node, Mapping):
        for name, child in node.items():
            path = f"{key}.{name}" if key else name
            yield (shown(path)[1:-1], name)
            yield from _values(child, path)
    elif isinstance(node, list):
        for place, child in enumerate(node):
            yield from _values(child, f"{key}[{place}]")
    else:
        yield (shown(key)[1:-1], node)


def _outline(value: Any) -> Any:
    """Cut a value to what can be seen in a message, so that none of a large one's rest is written."""
    if isinstance(value, str):
        return value[:80]
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"a whole number of {value.bit_length()} bits"
    if isinstance(value, Mapping):
        return {str(name)[:80]: "..." for name in list(value)[:8]}
    if isinstance(value, (list, tuple)):
        return ["..." if isinstance(one, (list, tuple, Mapping)) else _outline(one) for one in value[:12]]
    return value
