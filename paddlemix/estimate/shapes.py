"""A model's parameters without their memory: of a folder's config.json, or of a published model by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddlemix.configuration.arguments import ModelArguments
from paddlemix.estimate.coded import Coded, coded_weights
from paddlemix.hub import PADDLEMIX_NAMES
from paddlemix.models.base import MixPretrainedModel, read_carried_files
from paddlemix.models.config_file import read_config
from paddlemix.models.family import Family
from paddlemix.models.quantized import Quantizing
from paddlemix.models.registry import FAMILIES, find_family
from paddlemix.peft.chain import AdapterChain, chain_on, find_chain
from paddlemix.peft.folders import ModelFolders
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.quantization.scheme import Scheme, read_scheme
from paddlemix.training.finetune import AdapterStart, choose_trained, quantized_without_adapters
from paddlemix.weights.loading import without_initial_values

# How the names of those that have seen the tokens of turns end.
_TUNED = ("-Instruct", "-Chat")
# How the names of those go on whose weights are published as codes, always of conversations.
_QUANTIZED = {
    "-GPTQ-Int4": Scheme("gptq", 4, 128),
    "-GPTQ-Int8": Scheme("gptq", 8, 128),
    "-Int4": Scheme("gptq", 4, 128),
    "-AWQ": Scheme("awq", 4, 128),
}


@dataclass(frozen=True)
class _Published:
    """A model whose sizes are known by its name.

    Attributes:
        family: of it.
        values: of its config.json.
        is_base: whether it was not trained on conversations.
        scheme: of its weights; None where they are plain numbers.
    """

    family: Family
    values: Mapping[str, Any]
    is_base: bool
    scheme: Scheme | None


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
    published = _published(chain.base)
    with without_initial_values():
        if published is not None:
            family, is_base = published.family, published.is_base
            model = _empty(family, published.values, dtype)
        else:
            folders = chain.folders()
            family = find_family(folders.model)
            model = _empty(family, read_config(folders.model), dtype)
            is_base = keys.lora and _is_base(model, family, folders, chat_template)
        start = AdapterStart(chain.base, chain.continued)
        return choose_trained(model, family, keys, is_base=is_base and not chain.merged, seed=0, start=start), family


def coded_base(keys: ModelArguments, model: MixPretrainedModel | MixLoRAModel) -> Coded | None:
    """Find the weights that a run's base holds as codes: those that its files hold so, and those that are rounded.

    Args:
        keys: name the model and how it is quantised.
        model: of `model_to_train`.

    Returns:
        They; None for none.

    Raises:
        ValueError: there are some, but no adapters that could be trained on them; or a file is damaged.
    """
    chain = _find_chain(keys)
    published = _published(chain.base)
    folder = None if published is not None else chain.folders().model
    scheme = published.scheme if published is not None else read_scheme(read_config(folder), folder) if folder else None
    quantizing = Quantizing(keys.quantize, keys.quantize_vision) if keys.quantize else None
    found = coded_weights(model.model if isinstance(model, MixLoRAModel) else model, scheme, folder, quantizing)
    if found is not None and not keys.lora:
        raise quantized_without_adapters(chain.base)
    return found


def _find_chain(keys: ModelArguments) -> AdapterChain:
    """Find the adapters that the model begins with; a published model is not fetched to see that it is none."""
    is_published = _published(PADDLEMIX_NAMES.get(keys.model_name_or_path, keys.model_name_or_path)) is not None
    find = chain_on if is_published else find_chain
    return find(keys.model_name_or_path, keys.lora_paths, creates_new=keys.create_new_adapter)


def _published(name: str) -> _Published | None:
    """Find a model that its family knows by name; None of a folder or another."""
    if Path(name).exists():
        return None
    end = next((end for end in _QUANTIZED if name.endswith(end)), "")
    plain = name.removesuffix(end)
    bare = next((plain.removesuffix(tuned) for tuned in _TUNED if plain.endswith(tuned)), plain)
    family = next((one for one in FAMILIES if bare in one.published), None)
    if family is None:
        return None
    return _Published(family, family.published[bare], bare == plain, _QUANTIZED.get(end))


def _empty(family: Family, values: Mapping[str, Any], dtype: str) -> MixPretrainedModel:
    return family.model_class.from_config(family.config_class(**values), dtype=dtype)


def _is_base(model: MixPretrainedModel, family: Family, folders: ModelFolders, chat_template: str | None) -> bool:
    model.carried_files = read_carried_files(folders.model)
    processor = family.processor_class.from_pretrained(
        folders.model, lora_path=folders.adapter, chat_template=chat_template
    )
    return not model.knows_turns(processor.tokenizer.token_id(processor.end_of_turn))
