"""adapter_config.json, in which PEFT says what an adapter is."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from paddlemix.files import write_json

ADAPTER_CONFIG_FILE = "adapter_config.json"
# Values that ask for nothing; anything else asks for what would have to be computed otherwise. Absent is neutral.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",), "use_qalora": (False,), "use_bdlora": (False,), "layer_replication": (),
    "target_parameters": ([],), "arrow_config": (), "alora_invocation_tokens": ([],), "kasa_config": (),
    "monteclora_config": (), "velora_config": (),
    # Others start from weights that they take away from the base's, which the files do not say.
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
}  # fmt: skip
# What PEFT cannot merge either: kinds that put tokens or states before a prompt, add layers, or choose at each token.
_NEVER_MERGED = ("use_qalora", "arrow_config", "alora_invocation_tokens")
_KINDS_NEVER_MERGED = (
    "PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "ADAPTION_PROMPT", "CARTRIDGE",
    "XLORA", "POLY", "BEFT",
)  # fmt: skip
_DEFAULT_TOKENS_LAYER = "embed_tokens"
BIASES = ("none", "all", "lora_only")


class Product(NamedTuple):
    """The product on a layer.

    Attributes:
        rank: of it.
        alpha: see `AdapterConfig`.
    """

    rank: int
    alpha: float


@dataclass(frozen=True)
class AdapterConfig:
    """What an adapter is.

    Attributes:
        rank: of its products.
        alpha: its products count `scaling` times, which is `alpha / rank`, or `alpha / sqrt(rank)` where `rslora`.
        dropout: in front of it while it is trained.
        rslora: as above.
        base: the model that it was trained on, a folder or `owner/name`; None where it was not said.
        dora: whether each output's weights have a length of their own (DoRA).
        rank_pattern: ranks of layers whose names end in a regular expression. Versions of PEFT differ in what fits, so
            that a layer's rank is that of its product in the file.
        alpha_pattern: likewise, in place of `alpha`; the first that fits.
        modules_to_save: endings of the names of layers that are copied, trained and saved whole.
        ties_head: whether head and embedding were trained as one weight.
        token_rows: by an ending of a layer's name, the tokens whose rows are trained.
        bias: which biases are trained: "none", "all" or "lora_only".
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    rslora: bool = False
    base: str | None = None
    dora: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    modules_to_save: tuple[str, ...] = ()
    ties_head: bool = False
    token_rows: Mapping[str, Sequence[int]] = field(default_factory=dict)
    bias: str = "none"

    @property
    def product(self) -> Product:
        """What is on layers that no pattern is about."""
        return Product(self.rank, self.alpha)

    @property
    def scaling(self) -> float:
        """How often the products count on layers that no pattern is about."""
        return self.scaling_of(self.product)

    def scaling_of(self, product: Product) -> float:
        """Return how often a product counts."""
        return product.alpha / (math.sqrt(product.rank) if self.rslora else product.rank)

    def product_of(self, layer: str) -> Product:
        """Return what is on a layer, which is called as in the adapter's file."""
        return Product(
            by_pattern(self.rank_pattern, [layer], self.rank), by_pattern(self.alpha_pattern, [layer], self.alpha)
        )

    def copies(self, layer: str) -> bool:
        """Tell whether a layer, called as in the adapter's file, is one of `modules_to_save` or inside one."""
        return any(f".{one}." in f".{layer}." for one in self.modules_to_save)

    def save(self, folder: Path, target_modules: Sequence[str], modules_to_save: Sequence[str]) -> None:
        """Write adapter_config.json.

        Args:
            folder: must exist.
            target_modules: endings of the names of the layers that have an adapter.
            modules_to_save: endings of the names of the layers that are saved whole.
        """
        values: dict[str, Any] = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.base,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "use_rslora": self.rslora,
            "target_modules": list(target_modules),
            "modules_to_save": list(modules_to_save) or None,
            "bias": self.bias,
            "fan_in_fan_out": False,
            "init_lora_weights": True,
            "inference_mode": True,
        }
        # Old versions of PEFT know no keys but those of their own time.
        values |= {"use_dora": True} if self.dora else {}
        values |= {"rank_pattern": dict(self.rank_pattern)} if self.rank_pattern else {}
        values |= {"alpha_pattern": dict(self.alpha_pattern)} if self.alpha_pattern else {}
        write_json(folder / ADAPTER_CONFIG_FILE, values)


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Read what `folder`'s adapter_config.json says.

    `fan_in_fan_out` is not asked for: PEFT goes by it in layers that none of our families has.

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
    rank = _number(path, values, "r", 8, above=0)
    return AdapterConfig(
        rank=rank,
        alpha=_number(path, values, "lora_alpha", 8.0, above=0),
        dropout=_number(path, values, "lora_dropout", 0.0),
        rslora=bool(values.get("use_rslora")),
        base=values.get("base_model_name_or_path") or None,
        dora=bool(values.get("use_dora")),
        rank_pattern=_pattern(path, values, "rank_pattern", rank),
        alpha_pattern=_pattern(path, values, "alpha_pattern", 8.0),
        modules_to_save=_names(path, values, "modules_to_save"),
        ties_head=bool(values.get("ensure_weight_tying")),
        token_rows=_token_rows(path, values.get("trainable_token_indices") or {}),
        bias=_bias(path, values.get("bias")),
    )


def _names(path: Path, values: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Read names, of which one may stand without a list."""
    found = values.get(key) or []
    listed = [found] if isinstance(found, str) else found
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise ValueError(f"{path}: `{key}` is {json.dumps(found)}; expected a list of names.")
    return tuple(listed)


def by_pattern(patterns: Mapping[str, Any], names: Sequence[str], otherwise: Any) -> Any:
    """Find the value of the first pattern that a layer's name ends in, as PEFT does.

    Args:
        patterns: values by regular expressions.
        names: what the layer is called; either may fit.
        otherwise: the value where none fits.

    Returns:
        The value.
    """
    return next((value for pattern, value in patterns.items() if ends_in(pattern, names)), otherwise)


def ends_in(pattern: str, names: Sequence[str]) -> bool:
    """Tell whether one of a layer's names is, or after a dot ends in, what a regular expression stands for."""
    return any(re.fullmatch(rf"(.*\.)?({pattern})", name) for name in names)


def _bias(path: Path, value: Any) -> str:
    found = value or "none"
    if found not in BIASES:
        raise ValueError(f"{path}: `bias` is {json.dumps(value)}; expected one of {', '.join(BIASES)}.")
    return found


def _refuse_unsupported(path: Path, values: dict[str, Any]) -> None:
    for name, neutral in _NEUTRAL.items():
        value = values.get(name)
        if value is not None and value not in neutral:
            raise ValueError(
                f"{path}: `{name}` is {json.dumps(value)}, which is not done here. {_way_out(name, value)}"
            )


def _way_out(name: str, value: Any) -> str:
    if name in _NEVER_MERGED or (name == "peft_type" and value in _KINDS_NEVER_MERGED):
        return "PEFT cannot merge it into the model's weights either: train a LoRA adapter in its place."
    return (
        "Merge the adapter with PEFT (`PeftModel.from_pretrained(base, folder).merge_and_unload()."
        "save_pretrained(merged)`), and give the merged model as `model_name_or_path`."
    )


def _pattern(path: Path, values: dict[str, Any], name: str, like: float) -> dict[str, Any]:
    """Read ranks or alphas by regular expressions; whole numbers where `like` is one."""
    found = values.get(name) or {}
    if not isinstance(found, dict):
        raise ValueError(f"{path}: `{name}` is {json.dumps(found)}; expected an object of numbers by layers.")
    for pattern in found:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{path}: `{name}`: {pattern!r} is no regular expression ({error}).") from error
    return {pattern: _number(path, found, pattern, like, above=0) for pattern in found}


def _token_rows(path: Path, value: Any) -> dict[str, tuple[int, ...]]:
    """Read which tokens' rows are trained: by layer, or a list for the embedding."""
    by_layer = {_DEFAULT_TOKENS_LAYER: value} if isinstance(value, list) else value
    try:
        return {layer: tuple(int(token) for token in tokens) for layer, tokens in by_layer.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: `trainable_token_indices` is {json.dumps(value)}; expected lists of token ids by layers."
        ) from error


def _number(path: Path, values: dict[str, Any], name: str, default: float, *, above: float = -1) -> Any:
    """Read the value of a key; a whole number where the default is one."""
    value = values.get(name, default)
    kinds = (int,) if isinstance(default, int) else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or value <= above:
        expected = "a whole number" if isinstance(default, int) else "a number"
        raise ValueError(f"{path}: `{name}` is {json.dumps(value)}; expected {expected} above {above:g}.")
    return value
