"""A model's parameters without their memory: of a folder's config.json, or of a published model by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paddlemix.auto import AutoTokenizerMIX
from paddlemix.configuration.arguments import ModelArguments
from paddlemix.hub import PADDLEMIX_NAMES, local_folder
from paddlemix.models.base import read_carried_files, read_config
from paddlemix.models.registry import FAMILIES, Family, find_family
from paddlemix.names import END_OF_TURN
from paddlemix.training.finetune import choose_trained
from paddlemix.weights.loading import without_initial_values

_QWEN2_VL_2B = {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "num_hidden_layers": 28,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
_QWEN2_VL_72B = {
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "num_hidden_layers": 80,
}
# What each published model's config.json says beside its family's defaults: no file has to be fetched for these.
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen/Qwen2-VL-2B": ("qwen2_vl", _QWEN2_VL_2B),
    "Qwen/Qwen2-VL-7B": ("qwen2_vl", {}),
    "Qwen/Qwen2-VL-72B": ("qwen2_vl", _QWEN2_VL_72B),
    "Qwen/Qwen-VL": ("qwen", {}),
}
# How the names of those that have seen the tokens of turns end.
_TUNED = ("-Instruct", "-Chat")


def model_to_train(keys: ModelArguments, *, dtype: str) -> tuple[Any, Family]:
    """The model that a run would train, frozen or with adapters; its parameters have shapes and no memory.

    Args:
        keys: name the model and what is trained of it.
        dtype: of the weights.

    Returns:
        The model and its family.

    Raises:
        OSError: there is no such model, or it cannot be fetched.
        ValueError: its config.json makes no sense, or a pattern of what to train matches nothing.
    """
    name = PADDLEMIX_NAMES.get(keys.model_name_or_path, keys.model_name_or_path)
    bare = next((name.removesuffix(end) for end in _TUNED if name.endswith(end)), name)
    with without_initial_values():
        if bare in PUBLISHED and not Path(name).exists():
            model_type, values = PUBLISHED[bare]
            family = next(one for one in FAMILIES if one.model_type == model_type)
            model, is_base = _empty(family, values, dtype), bare == name
        else:
            folder = local_folder(name)
            family = find_family(folder)
            model = _empty(family, read_config(folder), dtype)
            is_base = keys.lora and _is_base(model, folder)
        return choose_trained(model, family, keys, is_base=is_base, seed=0), family


def _empty(family: Family, values: dict[str, Any], dtype: str) -> Any:
    return family.model_class.from_config(family.config_class(**values), dtype=dtype)


def _is_base(model: Any, folder: Path) -> bool:
    model.carried_files = read_carried_files(folder)
    return not model.knows_turns(AutoTokenizerMIX.from_pretrained(folder).token_id(END_OF_TURN))
