"""lora_config.json, in which PaddleNLP says what an adapter is.

Source: PaddleNLP 3.0, `peft/lora/lora_config.py` and `peft/lora/lora_layers.py`: the product of `lora_A` and `lora_B`
counts `lora_alpha / r` times, `lora_alpha / sqrt(r)` with `rslora`; `lora_plus_scale` changes a rate, not what counts.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from paddlemix.bounded_json import finite_number, shown, whole_number
from paddlemix.files import read_json_object
from paddlemix.peft.adapter_config import MAX_RANK, AdapterConfig
from paddlemix.peft.folders import lasting_name

LORA_CONFIG_FILE = "lora_config.json"
# What would have to be computed otherwise, unless it is absent or has no value.
_NOT_DONE = {
    "pissa": "starts from a part of the base's weights, which the base lost meanwhile",
    "use_mora": "is another product than LoRA's",
    "lora_use_mixer": "has a third factor",
    "do_qat": "rounds while it is trained",
    "trainable_bias": "trains biases beside the products, which are not converted",
    "enable_lora_list": "has products for parts of a layer alone",
}


def read_lora_config(folder: Path, base: str | None = None) -> AdapterConfig:
    """Read what `folder`'s lora_config.json says, in PEFT's terms.

    An adapter of LoRA-GA holds its products beside those that it began with, which count the other way: together they
    are one of twice the rank.

    Args:
        folder: of an adapter.
        base: the model that it was trained on; None for what the file says.

    Returns:
        The config.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or asks for what PEFT's form cannot say.
    """
    path = folder / LORA_CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no {LORA_CONFIG_FILE}, without which nothing says how its products count.")
    values = read_json_object(path)
    _refuse(path, values)
    rank, alpha = _number(path, values, "r", whole=True), _number(path, values, "lora_alpha")
    named = base or values.get("base_model_name_or_path")
    if named is not None and not isinstance(named, str):
        raise ValueError(f"{path}: `base_model_name_or_path` is {shown(named)}; expected a text.")
    config = AdapterConfig(
        rank=rank,
        alpha=alpha,
        dropout=_number(path, values, "lora_dropout") if values.get("lora_dropout") else 0.0,
        rslora=bool(values.get("rslora")),
        base=lasting_name(named) if named else None,
    )
    _check_scaling(path, values, config.scaling)
    if not values.get("loraga"):
        return config
    return AdapterConfig(2 * rank, config.scaling * 2 * rank, config.dropout, base=config.base)


def _refuse(path: Path, values: dict[str, Any]) -> None:
    problems = [f"`{name}` {why}" for name, why in _NOT_DONE.items() if values.get(name)]
    if problems:
        raise ValueError(
            f"{path}: {'; '.join(problems)}. Such an adapter is not converted: merge it into its base with PaddleNLP, "
            "and take the merged model."
        )


def _number(path: Path, values: dict[str, Any], name: str, *, whole: bool = False) -> Any:
    value = values.get(name, 8)
    if not (whole_number(value, 1, MAX_RANK) if whole else finite_number(value) and value > 0):
        raise ValueError(f"{path}: `{name}` is {shown(value)}; expected a number above 0.")
    return value


def _check_scaling(path: Path, values: dict[str, Any], scaling: float) -> None:
    stored = values.get("scaling")
    if stored is not None and not (finite_number(stored) and math.isclose(stored, scaling, rel_tol=1e-6)):
        raise ValueError(
            f"{path}: `scaling` is {shown(stored)}, but `lora_alpha` and `r` give {scaling:g}. Set those two to "
            "what the adapter was trained with."
        )
