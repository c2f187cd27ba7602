"""Turns as other systems write them: who speaks, and a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paddlemix.conversation import RecordError, RecordId, Role
from paddlemix.datasets.formats.format import require
from paddlemix.datasets.records.json_files import Record, describe

Said = list[tuple[Role, str]]
# The keys of the speaker and of the text.
Spelling = tuple[str, str]

FROM_VALUE: Spelling = ("from", "value")
ROLE_CONTENT: Spelling = ("role", "content")

# The role that each name of a speaker means.
ROLES: dict[str, Role] = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "system": "system",
}
# Where an answer is marked as not to be learned: OpenAI's key and ms-swift's.
_WEIGHT_KEYS = ("weight", "loss")


def read_turns(record: Record, key: str, spellings: Sequence[Spelling], source: RecordId) -> Said:
    """Read a list of turns.

    Args:
        record: the record.
        key: where the list stands.
        spellings: how a turn may be written.
        source: the record to name in errors.

    Returns:
        Role and text of every turn.

    Raises:
        RecordError: there is no such list, or a turn is written otherwise.
    """
    items = require(record, key, list, "a list of turns", source)
    return [_read_turn(item, f"`{key}[{number}]`", spellings, source) for number, item in enumerate(items)]


def role_at(item: Record, key: str, name: str, source: RecordId) -> Role:
    """Read who speaks in a turn that is to be learned as a whole.

    Args:
        item: the turn.
        key: where the speaker stands.
        name: what to call the turn in errors.
        source: the record to name in errors.

    Returns:
        The role.

    Raises:
        RecordError: it is another role, or the turn is marked as not to be learned.
    """
    expected = f"one of {', '.join(ROLES)}"
    speaker = require(item, key, str, expected, source, within=name)
    if speaker not in ROLES:
        raise RecordError(source, f"`{key}` of {name} is {describe(speaker)}; expected {expected}")
    for weight in _WEIGHT_KEYS:
        if ROLES[speaker] == "assistant" and item.get(weight) not in (None, 1):
            raise RecordError(
                source, f"`{weight}` of {name} is {describe(item[weight])}, but every answer is learned; take it out"
            )
    return ROLES[speaker]


def with_system(record: Record, turns: Said, source: RecordId) -> Said:
    """Put the text of the `system` key before the turns.

    Args:
        record: the record; the key may be missing, null or "".
        turns: stay as they are.
        source: the record to name in errors.

    Returns:
        The turns after their system turn, if there is one.

    Raises:
        RecordError: the value is no text.
    """
    system = record.get("system")
    if not isinstance(system, (str, type(None))):
        raise RecordError(source, f"`system` of the record is {describe(system)}; expected a text or null")
    return [("system", system), *turns] if system else turns


def _read_turn(item: Any, name: str, spellings: Sequence[Spelling], source: RecordId) -> tuple[Role, str]:
    for speaker, text in spellings:
        if isinstance(item, dict) and speaker in item:
            return role_at(item, speaker, name, source), require(item, text, str, "a text", source, within=name)
    expected = " or ".join(f'{{"{speaker}": ..., "{text}": ...}}' for speaker, text in spellings)
    raise RecordError(source, f"{name} is {describe(item)}; expected {expected}")
