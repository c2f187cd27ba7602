"""adapter_config.json, in which PEFT says what an adapter is."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddlemix.files import write_json

ADAPTER_CONFIG_FILE = "adapter_config.json"
# Values that ask for nothing; anything else asks for what would have to be computed otherwise. Absent is neutral.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",), "bias": ("none",), "fan_in_fan_out": (False,), "use_dora": (False,), "lora_bias": (False,),
    "use_qalora": (False,), "use_bdlora": (False,), "rank_pattern": ({},), "alpha_pattern": ({},),
    "layer_replication": (), "target_parameters": ([],), "trainable_token_indices": ({}, []), "arrow_config": (),
    "alora_invocation_tokens": ([],), "kasa_config": (), "monteclora_config": (), "velora_config": (),
    # Others start from weights that they take away from the base's, which the files do not say.
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
}  # fmt: skip


@dataclass(frozen=True)
class AdapterConfig:
    """What an adapter is.

    Attributes:
        rank: of its products.
        alpha: its products count `scaling` times, which is `alpha / rank`, or `alpha / sqrt(rank)` where `rslora`.
        dropout: in front of it while it is trained.
        rslora: as above.
        base: the model that it was trained on, a folder or `owner/name`; None where it was not said.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    rslora: bool = False
    base: str | None = None

    @property
    def scaling(self) -> float:
        """How often the products count."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def save(self, folder: Path, target_modules: Sequence[str], modules_to_save: Sequence[str]) -> None:
        """Write adapter_config.json.

        Args:
            folder: must exist.
            target_modules: endings of the names of the layers that have an adapter.
            modules_to_save: endings of the names of the layers that are saved whole.
        """
        values = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.base,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "use_rslora": self.rslora,
            "target_modules": list(target_modules),
            "modules_to_save": list(modules_to_save) or None,
            "bias": "none",
            "fan_in_fan_out": False,
            "init_lora_weights": True,
            "inference_mode": True,
        }
        write_json(folder / ADAPTER_CONFIG_FILE, values)


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Read what `folder`'s adapter_config.json says.

    Args:
        folder: of an adapter.

    Returns:
        The config.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or asks for what is not done here.
    """
    path = folder / ADAPTER_CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no {ADAPTER_CONFIG_FILE}; expected the folder of an adapter.")
    try:
        values = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON: {error}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a JSON object was expected, not a {type(values).__name__}.")
    _refuse_unsupported(path, values)
    return AdapterConfig(
        rank=_number(path, values, "r", 8, above=0),
        alpha=_number(path, values, "lora_alpha", 8.0, above=0),
        dropout=_number(path, values, "lora_dropout", 0.0),
        rslora=bool(values.get("use_rslora")),
        base=values.get("base_model_name_or_path") or None,
    )


def _refuse_unsupported(path: Path, values: dict[str, Any]) -> None:
    for name, neutral in _NEUTRAL.items():
        value = values.get(name)
        if value is not None and value not in neutral:
            raise ValueError(
                f"{path}: `{name}` is {json.dumps(value)}, which is not done here; merge the adapter with the program "
                "that made it, and take the merged model."
            )


def _number(path: Path, values: dict[str, Any], name: str, default: float, *, above: float = -1) -> Any:
    """Read the value of a key; a whole number where the default is one."""
    value = values.get(name, default)
    kinds = (int,) if isinstance(default, int) else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or value <= above:
        raise ValueError(f"{path}: `{name}` is {json.dumps(value)}; expected a number above {above}.")
    return value
