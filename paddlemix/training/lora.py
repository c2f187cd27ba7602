"""From the `lora_*` keys of a config to a model with adapters."""

from __future__ import annotations

import logging

import paddle

from paddlemix.configuration.arguments import ModelArguments
from paddlemix.contract import Model
from paddlemix.models.base import MixPretrainedModel
from paddlemix.models.registry import Family
from paddlemix.peft.adapter_config import AdapterConfig
from paddlemix.peft.folders import lasting_name
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.peft.targets import language_layers, layers_with_weights, linear_layers, match_layers, token_layers

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
        layers = match_layers("lora_target_modules", keys.lora_target_modules, linear_layers(model))
    whole = _whole_parameters(model, keys, is_base=is_base)
    layers = [layer for layer in layers if f"{layer}.weight" not in whole]
    if not layers:
        raise ValueError("`lora_modules_to_save` names every layer of `lora_target_modules`; leave some for adapters.")
    config = AdapterConfig(
        keys.lora_rank, keys.lora_alpha, keys.lora_dropout, keys.rslora, lasting_name(keys.model_name_or_path)
    )
    # Every rank starts from the same adapters; PaddleNLP's trainer seeds only once it has the model.
    paddle.seed(seed)
    return MixLoRAModel.adapting(model, config, layers, whole, lora_plus_scale=keys.lora_plus_scale)


def _whole_parameters(model: Model, keys: ModelArguments, *, is_base: bool) -> list[str]:
    """Return the names of the parameters that are trained themselves."""
    if keys.lora_modules_to_save is not None:
        layers = match_layers("lora_modules_to_save", keys.lora_modules_to_save, layers_with_weights(model))
    else:
        layers = list(token_layers(model)) if is_base or keys.new_tokens else []
        if layers:
            logger.info(
                "%s: `lora_modules_to_save` is %s. Give [] to train the adapters alone.",
                f"{type(model).__name__} is a base model, to which the tokens of turns are new"
                if is_base
                else "`new_tokens` have rows that would stay as they begin",
                layers,
            )
    return [name for name, _ in model.named_parameters() if name.rpartition(".")[0] in layers]
