"""A model's parameters without their memory: of a folder's config.json, or of a published model by its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paddlemix.auto import AutoTokenizerMIX
from paddlemix.configuration.arguments import ModelArguments
from paddlemix.hub import PADDLEMIX_NAMES, local_folder
from paddlemix.models.base import MixPretrainedModel, read_carried_files
from paddlemix.models.config_file import read_config
from paddlemix.models.family import Family
from paddlemix.models.registry import FAMILIES, find_family
from paddlemix.names import END_OF_TURN
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.training.finetune import choose_trained
from paddlemix.weights.loading import without_initial_values

# How the names of those that have seen the tokens of turns end.
_TUNED = ("-Instruct", "-Chat")


def model_to_train(keys: ModelArguments, *, dtype: str) -> tuple[MixPretrainedModel | MixLoRAModel, Family]:
    """Build the model that a run would train, frozen or with adapters; its parameters have shapes and no memory.

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
        publisher = next((one for one in FAMILIES if bare in one.published), None)
        if publisher is not None and not Path(name).exists():
            family, is_base = publisher, bare == name
            model = _empty(family, family.published[bare], dtype)
        else:
            folder = local_folder(name)
            family = find_family(folder)
            model = _empty(family, read_config(folder), dtype)
            is_base = keys.lora and _is_base(model, folder)
        return choose_trained(model, family, keys, is_base=is_base, seed=0), family


def _empty(family: Family, values: Mapping[str, Any], dtype: str) -> MixPretrainedModel:
    return family.model_class.from_config(family.config_class(**values), dtype=dtype)


def _is_base(model: MixPretrainedModel, folder: Path) -> bool:
    model.carried_files = read_carried_files(folder)
    return not model.knows_turns(AutoTokenizerMIX.from_pretrained(folder).token_id(END_OF_TURN))
