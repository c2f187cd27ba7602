"""All keys of other systems, by topic and by name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from pydantic.fields import FieldInfo

from paddlemix.configuration.foreign.course import CHECKPOINTS, COMPUTATION, EVALUATION, LOGS, STEPS
from paddlemix.configuration.foreign.records import LEARNED, LENGTHS, MEDIA, SETS
from paddlemix.configuration.foreign.rows import ForeignKey
from paddlemix.configuration.foreign.tuning import ADAPTERS, MODEL, PARTS
from paddlemix.configuration.keys import key_table

TOPICS: Mapping[str, list[ForeignKey]] = {
    "The model": MODEL,
    "What is trained": PARTS,
    "Adapters": ADAPTERS,
    "Record sets": SETS,
    "Lengths and order": LENGTHS,
    "What is learned": LEARNED,
    "Images and videos": MEDIA,
    "Steps": STEPS,
    "Precision, memory and cards": COMPUTATION,
    "Checkpoints": CHECKPOINTS,
    "Evaluation": EVALUATION,
    "Logs": LOGS,
}
FOREIGN_KEYS: Mapping[str, ForeignKey] = MappingProxyType({row.name: row for rows in TOPICS.values() for row in rows})


@cache
def readable_keys() -> Mapping[str, FieldInfo]:
    """Give all keys that may stand at a config's top, ours and others', with what is expected of their values."""
    others = {row.name: key_table().get(row.ours) or FieldInfo(annotation=Any) for row in FOREIGN_KEYS.values()}
    return MappingProxyType({**others, **key_table()})
