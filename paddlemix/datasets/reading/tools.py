"""Functions that a record says may be called, and the calls of its turns."""

from __future__ import annotations

import json
from typing import Any

import orjson

from paddlemix.conversation import ToolCall
from paddlemix.datasets.reading.context import Reading
from paddlemix.datasets.reading.keys import is_given
from paddlemix.datasets.records.json_files import Record, describe


def tools_of(record: Record, reading: Reading) -> tuple[str, ...]:
    """Read the functions that a record says may be called.

    Args:
        record: `tools` is a list of objects, or JSON of one; it may be missing.
        reading: of the record.

    Returns:
        Each as JSON text, with its type round it: `{"type": "function", "function": {"name": ..., ...}}`.

    Raises:
        RecordError: it is something else.
    """
    value = record.get("tools")
    if not is_given(value):
        return ()
    tools = parsed(value, "`tools`", reading) if isinstance(value, str) else value
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise reading.error(f"`tools` is {describe(value)}; expected a list of functions, each an object")
    whole = (tool if "function" in tool else {"type": "function", "function": tool} for tool in tools)
    return tuple(_json(tool, "`tools`", reading) for tool in whole)


def calls_from(value: Any, name: str, reading: Reading) -> tuple[ToolCall, ...]:
    """Read calls of functions.

    Args:
        value: one or a list of them, as `{"name": ..., "arguments": ...}` or with that under `function`; arguments are
            an object, or JSON of one.
        name: what to call the turn in errors.
        reading: of the record.

    Returns:
        The calls.

    Raises:
        RecordError: it is something else.
    """
    return tuple(_call(one, name, reading) for one in (value if isinstance(value, list) else [value]))


def parsed(text: str, name: str, reading: Reading) -> Any:
    """Parse JSON that stands in a record as text.

    Args:
        text: the text.
        name: what to call it in errors.
        reading: of the record.

    Returns:
        The value.

    Raises:
        RecordError: it is no JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise reading.error(f"{name} is {describe(text)}, which is no JSON ({error})") from error


def _call(value: Any, name: str, reading: Reading) -> ToolCall:
    call = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise reading.error(
            f'a call of {name} is {describe(value)}; expected {{"name": ..., "arguments": {{...}}}}, or a list of such'
        )
    arguments = call.get("arguments") or {}
    if isinstance(arguments, str):
        arguments = parsed(arguments, f"`arguments` of a call of {name}", reading)
    if not isinstance(arguments, dict):
        raise reading.error(f"`arguments` of a call of {name} is {describe(arguments)}; expected an object")
    return ToolCall(call["name"], _json(arguments, f"a call of {name}", reading))


def _json(value: Any, name: str, reading: Reading) -> str:
    """Write JSON as chat templates do: a blank behind each comma and colon, Chinese as it is."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except (RecursionError, ValueError) as error:
        raise reading.error(f"{name} cannot be written as JSON: {error}") from error
