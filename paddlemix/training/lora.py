"""From the `lora_*` keys of a config to a model with adapters."""

from __future__ import annotations

import logging

import paddle
from paddle import nn

from paddlemix.configuration.arguments import ModelArguments
from paddlemix.configuration.layer_names import ALL_LINEAR, ending_in, layer_patterns
from paddlemix.contract import Model
from paddlemix.models.base import MixPretrainedModel
from paddlemix.models.registry import Family
from paddlemix.peft.adapter_config import AdapterConfig
from paddlemix.peft.folders import lasting_name
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.peft.targets import HEAD, language_layers, layers_with_weights, linear_layers, match_layers

logger = logging.getLogger(__name__)


def add_adapters(
    model: MixPretrainedModel, family: Family, keys: ModelArguments, *, is_base: bool, seed: int
) -> MixLoRAModel:
    """Put new adapters where the config says, and freeze everything else.

    Args:
        model: as its checkpoint has it; its layers are replaced in place.
        family: the model's.
        keys: the config's.
        is_base: whether the model has never seen the tokens of turns.
        seed: of the adapters' first values.

    Returns:
        The model with adapters, which do not change what it computes yet.

    Raises:
        ValueError: a pattern matches nothing, or no layer is left for an adapter.
    """
    if keys.lora_target_modules is None:
        layers = language_layers(model, family.language_globs)
    else:
        layers = _named("lora_target_modules", keys.lora_target_modules, linear_layers(model), model, family)
    whole = _whole_parameters(model, family, keys.lora_modules_to_save, is_base=is_base)
    layers = [layer for layer in layers if f"{layer}.weight" not in whole]
    if not layers:
        raise ValueError("`lora_modules_to_save` names every layer of `lora_target_modules`; leave some for adapters.")
    config = AdapterConfig(
        keys.lora_rank, keys.lora_alpha, keys.lora_dropout, keys.rslora, lasting_name(keys.model_name_or_path)
    )
    # Every rank starts from the same adapters; PaddleNLP's trainer seeds only once it has the model.
    paddle.seed(seed)
    return MixLoRAModel.adapting(model, config, layers, whole, lora_plus_scale=keys.lora_plus_scale)


def _named(key: str, given: str | list[str], names: list[str], model: nn.Layer, family: Family) -> list[str]:
    """Find those of the layers `names` that a key of the config names."""
    found, patterns = set(), []
    for pattern in layer_patterns(given):
        chosen = language_layers(model, family.language_globs) if pattern == ALL_LINEAR else ending_in(pattern, names)
        found |= set(chosen)
        patterns += [] if chosen else [pattern]
    found |= set(match_layers(key, patterns, names))
    return [name for name in names if name in found]


def _whole_parameters(
    model: MixPretrainedModel, family: Family, given: str | list[str] | None, *, is_base: bool
) -> list[str]:
    """Return the names of the parameters that are trained themselves."""
    if given is None:
        layers = _embedding_and_head(model) if is_base else []
        if layers:
            logger.info(
                "%s is a base model, to which the tokens of turns are new: `lora_modules_to_save` is %s. Give [] to "
                "train the adapters alone.",
                type(model).__name__,
                layers,
            )
    else:
        layers = _named("lora_modules_to_save", given, layers_with_weights(model), model, family)
    return [name for name, _ in model.named_parameters() if name.rpartition(".")[0] in layers]


def _embedding_and_head(model: Model) -> list[str]:
    embedding = model.get_input_embeddings()
    return [name for name, layer in model.named_sublayers() if layer is embedding or name == HEAD]
