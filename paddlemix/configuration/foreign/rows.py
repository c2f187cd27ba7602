"""What a row of the table of other systems' keys says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SYSTEMS = {
    "T": "transformers",
    "R": "TRL",
    "P": "PEFT",
    "L": "LLaMA-Factory",
    "S": "ms-swift",
    "M": "PaddleMIX, PaddleNLP",
    "V": "LLaVA, Qwen-VL's scripts",
}

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class ForeignKey:
    """A key of other systems, or a key of ours to which others give other values.

    Attributes:
        name: what it is called there.
        systems: letters of `SYSTEMS`.
        ours: the key of ours that takes its values; "" where none does.
        settings: what single values set here, by their JSON; they come before `ours`.
        members: keys of ours that an object may have, each meaning the same.
        idle: values, by their JSON, that ask for nothing but what is done anyway; None: all values are.
        advice: what to do here in place of it, as sentences; ends a refusal.
        note: what differs although the key is taken, as sentences.
        noted: the value, by its JSON, that the note is about; "" where it is about all.
        commas: whether a text may hold several values with commas between them, which are a list here.
    """

    name: str
    systems: str
    ours: str = ""
    settings: Mapping[str, Settings] = field(default_factory=dict)
    members: tuple[str, ...] = ()
    idle: frozenset[str] | None = frozenset()
    advice: str = ""
    note: str = ""
    noted: str = ""
    commas: bool = False

    def read(self, value: Any) -> Settings | None:
        """Give what a value sets here; nothing where it is idle, None where it is not taken."""
        spelled = as_json(value)
        if spelled in self.settings:
            return self.settings[spelled]
        if self.idle is None or spelled in self.idle:
            return {}
        if self.ours:
            is_list = self.commas and isinstance(value, str) and "," in value
            return {self.ours: [part.strip() for part in value.split(",")] if is_list else value}
        if self.members and isinstance(value, dict) and set(value) <= set(self.members):
            return value
        return None


def as_json(value: Any) -> str:
    """Spell a value, so that 1 and true differ and 0.0 and 0 do not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def same(
    names: str,
    systems: str,
    ours: str,
    values: Mapping[Any, Any] | None = None,
    *,
    idle: tuple[Any, ...] = (),
    note: str = "",
    commas: bool = False,
) -> list[ForeignKey]:
    """Describe keys that mean what a key of ours means.

    Args:
        names: of the keys, with spaces between them.
        systems: that have them.
        ours: our key.
        values: what single values are here; the others are the same.
        idle: values that ask for nothing but what is done anyway, also where our key has no effect.
        note: what differs all the same.
        commas: whether a text may hold several values with commas between them.

    Returns:
        A row for each name.
    """
    settings = {as_json(value): {ours: here} for value, here in (values or {}).items()}
    spelled = frozenset(map(as_json, idle))
    return [
        ForeignKey(name, systems, ours=ours, settings=settings, idle=spelled, note=note, commas=commas)
        for name in names.split()
    ]


def chosen(
    names: str,
    systems: str,
    values: Mapping[Any, Settings],
    advice: str = "",
    *,
    idle: tuple[Any, ...] = (),
    note: tuple[Any, str] | None = None,
) -> list[ForeignKey]:
    """Describe keys of which single values mean what keys of ours mean.

    Args:
        names: of the keys, with spaces between them.
        systems: that have them.
        values: what each sets here.
        advice: what to do in place of other values.
        idle: values that ask for nothing but what is done anyway.
        note: a value, and what differs all the same where it is given.

    Returns:
        A row for each name.
    """
    settings = {as_json(value): sets for value, sets in values.items()}
    spelled = frozenset(map(as_json, idle))
    noted, text = (as_json(note[0]), note[1]) if note else ("", "")
    return [
        ForeignKey(name, systems, settings=settings, idle=spelled, advice=advice, note=text, noted=noted)
        for name in names.split()
    ]


def otherwise(name: str, systems: str, advice: str) -> list[ForeignKey]:
    """Describe a key of ours to which others give values of another kind; `advice` ends the refusal of such a one."""
    return [ForeignKey(name, systems, advice=advice)]


def inverse(names: str, systems: str, ours: str) -> list[ForeignKey]:
    """Describe switches that say the opposite of a switch of ours."""
    return chosen(names, systems, {True: {ours: False}, False: {ours: True}})


def never(names: str, systems: str, advice: str, *idle: Any) -> list[ForeignKey]:
    """Describe keys that nothing here does.

    Args:
        names: of the keys, with spaces between them.
        systems: that have them.
        advice: what to do in place of them.
        *idle: values that ask for nothing but what is done anyway.

    Returns:
        A row for each name.
    """
    return chosen(names, systems, {}, advice, idle=idle)


def passed_over(names: str, systems: str, reason: str) -> list[ForeignKey]:
    """Describe keys that change no result, whatever their values; `reason` is a sentence."""
    return [ForeignKey(name, systems, idle=None, advice=reason) for name in names.split()]
