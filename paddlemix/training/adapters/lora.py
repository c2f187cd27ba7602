"""From the `lora_*` keys of a config to a model with adapters: new ones, or one that is trained further."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import paddle
from paddle import nn

from paddlemix.configuration.arguments import ModelArguments
from paddlemix.configuration.layer_names import ALL_LINEAR, ending_in, layer_patterns
from paddlemix.contract import Model
from paddlemix.models.base import MixPretrainedModel
from paddlemix.models.quantized import quantized_layers
from paddlemix.models.registry import Family
from paddlemix.peft.adapter_config import AdapterConfig
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.peft.patterns import with_patterns
from paddlemix.peft.targets import HEAD, HEAD_WEIGHT, language_layers, layers_with_weights, linear_layers, match_layers
from paddlemix.training.adapters.keys import other_shape
from paddlemix.training.adapters.products import products_of

logger = logging.getLogger(__name__)


def add_adapters(
    model: MixPretrainedModel, family: Family, keys: ModelArguments, *, base: str, is_base: bool, seed: int
) -> MixLoRAModel:
    """Put new adapters where the config says, and freeze everything else.

    Args:
        model: as its checkpoint has it; its layers are replaced in place.
        family: the model's.
        keys: the config's.
        base: the model's name or path, which the adapters say.
        is_base: whether the model has never seen the tokens of turns.
        seed: of the adapters' first values.

    Returns:
        The model with adapters, which do not change what it computes yet.

    Raises:
        ValueError: a pattern matches nothing, or no layer is left for an adapter.
    """
    whole = _whole_parameters(model, family, keys, is_base=is_base)
    layers = [layer for layer in _target_layers(model, family, keys) if f"{layer}.weight" not in whole]
    if not layers:
        raise ValueError("`lora_modules_to_save` names every layer of `lora_target_modules`; leave some for adapters.")
    there = model.weight_layout(model.config).name_in_memory
    config = AdapterConfig(
        rank=keys.lora_rank,
        alpha=keys.lora_alpha,
        dropout=keys.lora_dropout,
        rslora=keys.rslora,
        base=base,
        dora=keys.lora_dora,
        bias=keys.lora_bias,
    )
    products = products_of(keys, {layer: there(layer) for layer in layers}, config.product)
    config = with_patterns(config, {there(layer): product for layer, product in products.items()})
    # Every rank starts from the same adapters; PaddleNLP's trainer seeds only once it has the model.
    paddle.seed(seed)
    adapted = MixLoRAModel.adapting(model, config, layers, whole, lora_plus_scale=keys.lora_plus_scale)
    if keys.lora_bias != "none" and not adapted.trained_biases:
        raise ValueError(
            f"`lora_bias` is {keys.lora_bias}, but no layer of `lora_target_modules` has a bias. Take the key out, or "
            'set it to "all".'
        )
    return adapted


def continue_adapter(
    model: MixPretrainedModel,
    family: Family,
    keys: ModelArguments,
    adapter: Path,
    *,
    base: str,
    given: Collection[str],
) -> MixLoRAModel:
    """Put an adapter on a model to train it further, and freeze everything else.

    Args:
        model: that the adapter is on; its layers are replaced in place.
        family: the model's.
        keys: the config's; the adapter decides about its shape.
        adapter: its folder.
        base: the model's name or path, which the adapter says from now on.
        given: the keys that the config gives; numbers among them are those of the adapter.

    Returns:
        The model with the adapter, which computes what it computed at the end of its training.

    Raises:
        FileNotFoundError: a file of the adapter is missing.
        ValueError: it is damaged, was not trained on this model, or the config names other layers.
    """
    wanted_whole = wanted_layers = None
    if keys.lora_modules_to_save is not None:
        wanted_whole = _whole_parameters(model, family, keys, is_base=False)
    if keys.lora_target_modules is not None:
        wanted_layers = _target_layers(model, family, keys)
    dropout = keys.lora_dropout if "lora_dropout" in given else None
    adapted = MixLoRAModel.continuing(model, adapter, base=base, dropout=dropout, lora_plus_scale=keys.lora_plus_scale)
    problems = [*_other_layers(adapted, wanted_layers, wanted_whole), *_other_products(adapted, keys, given)]
    if problems:
        raise other_shape(adapter, problems)
    return adapted


def _other_layers(adapted: MixLoRAModel, layers: Sequence[str] | None, whole: Sequence[str] | None) -> Iterator[str]:
    """Say which patterns name others than the adapter has; None stands for a key that was not given."""
    has_whole = adapted.whole_parameters
    if layers is not None:
        layers = [layer for layer in layers if f"{layer}.weight" not in has_whole]
    for key, named, has in (
        ("lora_target_modules", layers, adapted.adapted_layers),
        ("lora_modules_to_save", whole, has_whole),
    ):
        if named is not None and (others := set(named) ^ set(has)):
            whose = "names" if min(others) in named else "does not name"
            yield f"`{key}` {whose} {min(others)}, other than the adapter that is trained further"


def _other_products(adapted: MixLoRAModel, keys: ModelArguments, given: Collection[str]) -> Iterator[str]:
    """Say where the config's patterns ask for another rank or alpha than a layer of the adapter has."""
    has, there = adapted.products, adapted.model.weight_layout(adapted.model.config).name_in_memory
    wanted = products_of(keys, {layer: there(layer) for layer in has}, adapted.adapter_config.product)
    for key, kind in (("lora_rank_pattern", "rank"), ("lora_alpha_pattern", "alpha")):
        numbers = {layer: (getattr(wanted[layer], kind), getattr(has[layer], kind)) for layer in has}
        other = next((layer for layer, (one, found) in numbers.items() if one != found), None)
        if key in given and other is not None:
            yield f"`{key}` gives {other} {kind} {numbers[other][0]:g}, but it has {numbers[other][1]:g}"


def _target_layers(model: MixPretrainedModel, family: Family, keys: ModelArguments) -> list[str]:
    if keys.lora_target_modules is None:
        return language_layers(model, family.language_globs)
    return _named("lora_target_modules", keys.lora_target_modules, linear_layers(model), model, family)


def _named(key: str, given: str | list[str], names: list[str], model: nn.Layer, family: Family) -> list[str]:
    """Find those of the layers `names` that a key of the config names."""
    found, patterns = set(), []
    for pattern in layer_patterns(given):
        chosen = language_layers(model, family.language_globs) if pattern == ALL_LINEAR else ending_in(pattern, names)
        found |= set(chosen)
        patterns += [] if chosen else [pattern]
    found |= set(match_layers(key, patterns, names))
    return [name for name in names if name in found]


def _whole_parameters(model: MixPretrainedModel, family: Family, keys: ModelArguments, *, is_base: bool) -> list[str]:
    """Return the names of the parameters that are trained themselves."""
    shares = HEAD_WEIGHT in model.weight_layout(model.config).optional
    embedding = _embedding(model)
    if keys.lora_modules_to_save is None:
        layers = [embedding, HEAD] if is_base or keys.new_tokens else []
        if layers:
            logger.info(
                "%s: `lora_modules_to_save` is %s. Give [] to train the adapters alone.",
                f"{type(model).__name__} is a base model, to which the tokens of turns are new"
                if is_base
                else "`new_tokens` have rows that would stay as they begin",
                layers,
            )
    else:
        coded = quantized_layers(model)
        names = list(dict.fromkeys([*layers_with_weights(model), *coded, *([HEAD] if shares else [])]))
        layers = _named("lora_modules_to_save", keys.lora_modules_to_save, names, model, family)
        if fixed := [layer for layer in layers if layer in coded]:
            raise ValueError(
                f"`lora_modules_to_save` names {fixed[0]}, whose weight is held as codes, and such are not trained. "
                "Name it in `lora_target_modules`, which trains an adapter on it, or take it out."
            )
    if shares and (embedding in layers) != (HEAD in layers):
        named, other = (embedding, HEAD) if embedding in layers else (HEAD, embedding)
        raise ValueError(
            f"`lora_modules_to_save` names {named} without {other}, but they are one weight in this model and cannot "
            "be trained apart. Name both, which trains that weight, or neither."
        )
    return [name for name, _ in model.named_parameters() if name.rpartition(".")[0] in layers]


def _embedding(model: Model) -> str:
    embedding = model.get_input_embeddings()
    return next(name for name, layer in model.named_sublayers() if layer is embedding)
