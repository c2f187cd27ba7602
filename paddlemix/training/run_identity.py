"""Which keys of a config make a run another run, see `checkpoints.identity`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from paddlemix.checkpoints.identity import IdentityKeys
from paddlemix.configuration.arguments import DatasetItem, FinetuneConfig
from paddlemix.configuration.groups import ADAPTER_KEYS, DRAW_KEYS, FREE_KEYS, MODEL_KEYS, SAMPLE_KEYS
from paddlemix.configuration.layer_names import ALL_LINEAR, layer_patterns
from paddlemix.peft.folders import lasting_name
from paddlemix.training.compute_dtype import ComputeSettings

_FILES = ("data_files", "image_root")
# Of what a file may hold: it decides whether a run begins, and never what it trains.
_BOUNDS = ("unpack_limit",)
# Left out where they say nothing, so that a run goes on that began before they were known.
_LATER = ("columns", "markup", "placeholders", "join_turns", "train_on", "ignore_keys")
_NOTHING = {name: value for name, value in asdict(DatasetItem("auto", "a.json")).items() if name in _LATER}


def _names(value: str | list[str] | None) -> list[str] | None:
    return None if value is None else sorted(set(layer_patterns(value)))


def _targets(value: str | list[str] | None) -> list[str] | None:
    return _names(ALL_LINEAR if value is None else value)


def _listed(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []


def _tokens(value: list[str | dict[str, Any]] | None) -> list[Any]:
    return [{"token": one, "special": False} if isinstance(one, str) else one for one in value or ()]


def _sets(value: list[dict[str, Any]]) -> list[dict[str, Any]]:
    texts = ("splits", "ignore_keys", "data_files")
    return [{name: _listed(one[name]) if name in texts else one[name] for name in one} for one in value]


KNOWN_KEYS = IdentityKeys(
    model=MODEL_KEYS,
    samples=SAMPLE_KEYS,
    draws=DRAW_KEYS,
    free=FREE_KEYS,
    adapter=ADAPTER_KEYS,
    forms={
        "model_name_or_path": lasting_name,
        "lora_target_modules": _targets,
        "lora_modules_to_save": _names,
        "lora_path": lambda value: [lasting_name(one) for one in _listed(value)],
        "new_tokens": _tokens,
        "dataset.train": _sets,
        "dataset.train.data_files": _sets,
    },
)


def identity_keys(config: FinetuneConfig, computed: ComputeSettings | None = None) -> dict[str, Any]:
    """Return the values of `KNOWN_KEYS`, by key; `dataset.train` without its files, which may move.

    Args:
        config: of the run.
        computed: what it computes with, where the config leaves that to the machine.

    Returns:
        The values; the processor's is compared with nothing, and told where it changes.
    """
    sets = [asdict(one) for one in config.data.dataset.train]
    values = {
        **asdict(config.model),
        **asdict(config.data),
        **config.training,
        "dataset.train": [_without_files(one) for one in sets],
        "dataset.train.data_files": [{name: one[name] for name in _FILES} for one in sets],
    }
    known = {name: values[name] for name in KNOWN_KEYS.all if name in values}
    return known if computed is None else known | computed.as_keys()


def _without_files(item: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in item.items()
        if name not in (*_FILES, *_BOUNDS) and not (name in _LATER and value == _NOTHING[name])
    }
