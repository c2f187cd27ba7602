"""adapter_config.json, in which PEFT says what an adapter is."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from paddlemix.bounded_json import finite_number, shown, whole_number
from paddlemix.files import read_json_object, write_json

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
# No layer is wider than this by far, nor is there a vocabulary of more tokens.
MAX_RANK = 2**20
_MAX_TOKEN = 2**31 - 1
_LARGEST_ALPHA = 1e9
# Patterns are searched for in each layer's name, and a search cannot be stopped: how long it takes is bounded by what
# the patterns may hold. Each repeat multiplies it by the length of a name, each choice by what there is to choose from;
# repeated groups and references have no bound.
_MAX_PATTERNS = 10_000
_LONGEST_PATTERN = 512
_MOST_STEPS = 300_000
_NAME_LENGTH = 64
_REPEAT = re.compile(r"[*+{]")
_WITHOUT_BOUND = re.compile(r"\)[*+{]|\\[1-9]|\(\?P=|\(\?\(")
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
    values = read_json_object(path)
    _refuse_unsupported(path, values)
    rank = _number(path, values, "r", 8, above=0)
    return AdapterConfig(
        rank=rank,
        alpha=_number(path, values, "lora_alpha", 8.0, above=0),
        dropout=_number(path, values, "lora_dropout", 0.0, most=1),
        rslora=_flag(path, values, "use_rslora"),
        base=_text(path, values, "base_model_name_or_path"),
        dora=_flag(path, values, "use_dora"),
        rank_pattern=_pattern(path, values, "rank_pattern", rank),
        alpha_pattern=_pattern(path, values, "alpha_pattern", 8.0),
        modules_to_save=_names(path, values, "modules_to_save"),
        ties_head=_flag(path, values, "ensure_weight_tying"),
        token_rows=_token_rows(path, values.get("trainable_token_indices") or {}),
        bias=_bias(path, values.get("bias")),
    )


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
    return any(map(_at_end(pattern).fullmatch, names))


@lru_cache(_MAX_PATTERNS)
def _at_end(pattern: str) -> re.Pattern[str]:
    """Compile what a layer's name may end in; Python itself keeps a few hundred, and an adapter may have more."""
    return re.compile(rf"(.*\.)?({pattern})")


def _bias(path: Path, value: Any) -> str:
    found = value or "none"
    if found not in BIASES:
        raise ValueError(f"{path}: `bias` is {shown(value)}; expected one of {', '.join(BIASES)}.")
    return found


def _refuse_unsupported(path: Path, values: dict[str, Any]) -> None:
    for name, neutral in _NEUTRAL.items():
        value = values.get(name)
        if value is not None and value not in neutral:
            raise ValueError(f"{path}: `{name}` is {shown(value)}, which is not done here. {_way_out(name, value)}")


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
    if not isinstance(found, dict) or len(found) > _MAX_PATTERNS:
        raise ValueError(
            f"{path}: `{name}` is {shown(found)}; expected an object of at most {_MAX_PATTERNS} numbers by layers."
        )
    steps = 0
    for pattern in found:
        problem = _pattern_problem(pattern)
        steps += _steps(pattern)
        if problem is None and steps > _MOST_STEPS:
            problem = "and those before it choose and repeat so much that they may take any time; name layers in full"
        if problem is not None:
            raise ValueError(f"{path}: `{name}`: {shown(pattern)} {problem}.")
    return {pattern: _number(path, found, pattern, like, above=0) for pattern in found}


def _pattern_problem(pattern: str) -> str | None:
    """Say what is wrong with a regular expression that layers' names are searched for."""
    if len(pattern) > _LONGEST_PATTERN:
        return f"is longer than {_LONGEST_PATTERN} characters; name the layers one by one"
    if _WITHOUT_BOUND.search(pattern):
        return "repeats a group or refers to one, which may take any time; name the layers one by one"
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"is no regular expression ({error})"
    return None


def _steps(pattern: str) -> int:
    """Count how many ways a search may try, at most, in one layer's name."""
    choices = (1 + pattern.count("|")) ** pattern.count("(") * 2 ** pattern.count("?")
    return _NAME_LENGTH ** len(_REPEAT.findall(pattern)) * choices


def _token_rows(path: Path, value: Any) -> dict[str, tuple[int, ...]]:
    """Read which tokens' rows are trained: by layer, or a list for the embedding."""
    by_layer = {_DEFAULT_TOKENS_LAYER: value} if isinstance(value, list) else value
    if not isinstance(by_layer, dict) or not all(
        isinstance(tokens, list) and all(whole_number(token, 0, _MAX_TOKEN) for token in tokens)
        for tokens in by_layer.values()
    ):
        raise ValueError(f"{path}: `trainable_token_indices` is {shown(value)}; expected lists of token ids by layers.")
    return {layer: tuple(tokens) for layer, tokens in by_layer.items()}


def _flag(path: Path, values: dict[str, Any], name: str) -> bool:
    value = values.get(name)
    if not isinstance(value, (bool, type(None))):
        raise ValueError(f"{path}: `{name}` is {shown(value)}; expected true or false.")
    return bool(value)


def _text(path: Path, values: dict[str, Any], name: str) -> str | None:
    value = values.get(name)
    if not isinstance(value, (str, type(None))) or (value and "\0" in value):
        raise ValueError(f"{path}: `{name}` is {shown(value)}; expected a text.")
    return value or None


def _names(path: Path, values: dict[str, Any], name: str) -> tuple[str, ...]:
    """Read names, of which one may stand without a list."""
    value = values.get(name) or []
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(one, str) and one for one in listed):
        raise ValueError(f"{path}: `{name}` is {shown(value)}; expected a list of names of layers.")
    return tuple(listed)


def _number(
    path: Path, values: dict[str, Any], name: str, default: float, *, above: float = -1, most: float = _LARGEST_ALPHA
) -> Any:
    """Read the value of a key; a whole number where the default is one."""
    value = values.get(name, default)
    if isinstance(default, int):
        if not whole_number(value, int(above) + 1, MAX_RANK):
            expected = f"a whole number above {above:g}, at most {MAX_RANK}"
            raise ValueError(f"{path}: `{name}` is {shown(value)}; expected {expected}.")
    elif not finite_number(value) or not above < value <= most:
        raise ValueError(f"{path}: `{name}` is {shown(value)}; expected a number above {above:g}, at most {most:g}.")
    return value
