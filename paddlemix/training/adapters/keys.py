"""Keys of a config that say of an adapter what its own files say."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from paddlemix.configuration.arguments import ModelArguments
from paddlemix.peft.adapter_config import read_adapter_config


def check_numbers(keys: ModelArguments, given: Collection[str], adapter: Path) -> None:
    """Refuse keys that contradict an adapter that is trained further; needs no model.

    Args:
        keys: the config's.
        given: those that the config gives; defaults contradict nothing.
        adapter: its folder.

    Raises:
        ValueError: rank, scale, kind or biases are others; all that are, are named.
    """
    config = read_adapter_config(adapter)
    has: dict[str, float | bool | str] = {
        "lora_rank": config.rank,
        "lora_alpha": config.alpha,
        "rslora": config.rslora,
        "lora_dora": config.dora,
        "lora_bias": config.bias,
    }
    problems = [
        f"`{key}` is {_word(getattr(keys, key))}, but {_word(value)} in the adapter that is trained further"
        for key, value in has.items()
        if key in given and getattr(keys, key) != value
    ]
    if problems:
        raise other_shape(adapter, problems)


def other_shape(adapter: Path, problems: Sequence[str]) -> ValueError:
    """Make the error of keys that ask for another adapter than the one that is trained further."""
    return ValueError(
        f"{'; '.join(problems)}; {adapter} goes on in the shape that it has. Take the key out, or begin a new adapter "
        "on top of this one: set `create_new_adapter` to true."
    )


def _word(value: float | bool | str) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value).lower()
