"""The tokens that end a model's answers, as the files of its checkpoint name them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from paddlemix.contract import Model
from paddlemix.generation.published import published_object
from paddlemix.names import GENERATION_FILE

# What else a file that is written for the first time takes over from config.json, as transformers does without one.
_NAMED_BY_CONFIG = ("bos_token_id", "pad_token_id")


def end_ids(named: int | Sequence[int] | None) -> tuple[int, ...]:
    """Read an `eos_token_id` as files and callers write it: one id, a list of them, or null for none."""
    if named is None:
        return ()
    return (named,) if isinstance(named, int) else tuple(named)


def carried_values(model: Model) -> dict[str, Any]:
    """Parse the generation_config.json that a model came with.

    Args:
        model: its `carried_files` may hold the file.

    Returns:
        The values; none without a file.

    Raises:
        ValueError: the file is no JSON object.
    """
    return published_object(Path(GENERATION_FILE), model.carried_files.get(GENERATION_FILE, b"{}"))


def named_ends(model: Model) -> tuple[int, ...]:
    """Find what ends a model's answers: what its generation_config.json names, or else its config.json.

    Args:
        model: as `carried_values` takes it.

    Returns:
        The tokens; none where neither names any.

    Raises:
        ValueError: the file is no JSON object.
    """
    return end_ids(carried_values(model).get("eos_token_id")) or end_ids(model.config.eos_token_id)


def values_with_end(model: Model, end_of_turn: int, other_ends: Collection[int]) -> dict[str, Any]:
    """Write the values of a generation_config.json with which a turn's end ends answers too.

    Args:
        model: as `carried_values` takes it.
        end_of_turn: stands first among the ends, as in the files of published chat models.
        other_ends: the tokenizer's own, which ended answers where generation_config.json named none.

    Returns:
        The values that the file has, `eos_token_id` as a list of all ends; without a file what config.json says.

    Raises:
        ValueError: the file is no JSON object.
    """
    values = carried_values(model)
    if GENERATION_FILE not in model.carried_files:
        named = {name: getattr(model.config, name, None) for name in _NAMED_BY_CONFIG}
        values = {name: value for name, value in named.items() if value is not None}
    ends = end_ids(values.get("eos_token_id")) or (*end_ids(model.config.eos_token_id), *other_ends)
    return {**values, "eos_token_id": list(dict.fromkeys([end_of_turn, *ends]))}
