"""The tables of docs/config.md about other systems' keys."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from paddlemix.configuration.foreign.rows import SYSTEMS, ForeignKey
from paddlemix.configuration.foreign.table import TOPICS
from paddlemix.configuration.keys import key_table
from paddlemix.configuration.reading.strict_json import short


def foreign_tables() -> str:
    """Write the Markdown tables of all keys of other systems, with what is taken of each and what to do else."""
    return "\n\n".join(f"### {title}\n\n{_table(rows)}" for title, rows in TOPICS.items()) + "\n"


def _table(rows: list[ForeignKey]) -> str:
    lines = ["| key | of | taken as | else |", "|---|---|---|---|"]
    # Keys that mean the same stand side by side.
    for _, group in groupby(rows, key=lambda row: (row.systems, _taken(row), row.advice)):
        alike = list(group)
        names = ", ".join(f"`{row.name}`" for row in alike)
        systems = ", ".join(SYSTEMS[letter] for letter in alike[0].systems)
        lines.append(f"| {names} | {systems} | {_taken(alike[0])} | {alike[0].advice} |")
    return "\n".join(lines)


def _taken(row: ForeignKey) -> str:
    return "; ".join(_ways(row))


def _ways(row: ForeignKey) -> Iterator[str]:
    for value, settings in row.settings.items():
        here = ", ".join(f"`{ours}`: {short(given)}" for ours, given in settings.items())
        yield f"{value}: {here}"
    if row.ours:
        yield f"`{row.ours}`" + (f" ({row.note.rstrip('.')})" if row.note else "")
    if row.members:
        yield "an object of " + ", ".join(f"`{name}`" for name in row.members)
    if row.idle is None:
        yield "nothing, whatever its value"
    elif row.idle:
        yield f"{', '.join(sorted(row.idle))}: nothing, it is so anyway"
    if row.name in key_table():
        yield "a key here too"
