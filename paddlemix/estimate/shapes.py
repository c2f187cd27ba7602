"""A model's parameters without their memory: of a folder's config.json, or of a published model by its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paddlemix.configuration.arguments import ModelArguments
from paddlemix.hub import PADDLEMIX_NAMES
from paddlemix.models.base import MixPretrainedModel, read_carried_files
from paddlemix.models.config_file import read_config
from paddlemix.models.family import Family
from paddlemix.models.registry import FAMILIES, find_family
from paddlemix.peft.chain import AdapterChain, chain_on, find_chain
from paddlemix.peft.folders import ModelFolders
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.training.finetune import AdapterStart, choose_trained
from paddlemix.weights.loading import without_initial_values

# How the names of those that have seen the tokens of turns end.
_TUNED = ("-Instruct", "-Chat")


def model_to_train(
    keys: ModelArguments, *, dtype: str, chat_template: str | None = None
) -> tuple[MixPretrainedModel | MixLoRAModel, Family]:
    """Build the model that a run would train, frozen or with adapters; its parameters have shapes and no memory.

    Args:
        keys: name the model and what is trained of it.
        dtype: of the weights.
        chat_template: which of a folder's chat templates writes prompts; None for its default.

    Returns:
        The model and its family.

    Raises:
        OSError: there is no such model, or it cannot be fetched.
        ValueError: its config.json makes no sense, or a pattern of what to train matches nothing.
    """
    chain = _find_chain(keys)
    family_values = _published(chain.base)
    with without_initial_values():
        if family_values is not None:
            family, is_base = family_values[0], not chain.base.endswith(_TUNED)
            model = _empty(*family_values, dtype)
        else:
            folders = chain.folders()
            family = find_family(folders.model)
            model = _empty(family, read_config(folders.model), dtype)
            is_base = keys.lora and _is_base(model, family, folders, chat_template)
        start = AdapterStart(chain.base, chain.continued)
        return choose_trained(model, family, keys, is_base=is_base and not chain.merged, seed=0, start=start), family


def _find_chain(keys: ModelArguments) -> AdapterChain:
    """Find the adapters that the model begins with; a published model is not fetched to see that it is none."""
    is_published = _published(PADDLEMIX_NAMES.get(keys.model_name_or_path, keys.model_name_or_path)) is not None
    find = chain_on if is_published else find_chain
    return find(keys.model_name_or_path, keys.lora_paths, creates_new=keys.create_new_adapter)


def _published(name: str) -> tuple[Family, Mapping[str, Any]] | None:
    """Return the family and the config.json of a model that its family knows by name; None of a folder or another."""
    bare = next((name.removesuffix(end) for end in _TUNED if name.endswith(end)), name)
    found = next((one for one in FAMILIES if bare in one.published), None)
    return None if found is None or Path(name).exists() else (found, found.published[bare])


def _empty(family: Family, values: Mapping[str, Any], dtype: str) -> MixPretrainedModel:
    return family.model_class.from_config(family.config_class(**values), dtype=dtype)


def _is_base(model: MixPretrainedModel, family: Family, folders: ModelFolders, chat_template: str | None) -> bool:
    model.carried_files = read_carried_files(folders.model)
    processor = family.processor_class.from_pretrained(
        folders.model, lora_path=folders.adapter, chat_template=chat_template
    )
    return not model.knows_turns(processor.tokenizer.token_id(processor.end_of_turn))
