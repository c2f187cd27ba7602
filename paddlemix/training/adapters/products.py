"""Ranks and scales of single layers, from the patterns of a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paddlemix.configuration.arguments import ModelArguments
from paddlemix.peft.adapter_config import Product, by_pattern, ends_in
from paddlemix.peft.targets import compile_pattern, matches_nothing


def products_of(keys: ModelArguments, layers: Mapping[str, str], default: Product) -> dict[str, Product]:
    """Find what is on each layer.

    Args:
        keys: the config's.
        layers: those with an adapter, by the name that they have here, and what PEFT calls them; patterns may be for
            either.
        default: what is on a layer that no pattern is about.

    Returns:
        Rank and alpha by the name here.

    Raises:
        ValueError: a pattern is no regular expression, matches no layer, or only layers that others before it match.
    """
    ranks = _values("lora_rank_pattern", keys.lora_rank_pattern, layers, default.rank)
    alphas = _values("lora_alpha_pattern", keys.lora_alpha_pattern, layers, default.alpha)
    return {layer: Product(ranks[layer], alphas[layer]) for layer in layers}


def _values(key: str, patterns: Mapping[str, Any], layers: Mapping[str, str], default: Any) -> dict[str, Any]:
    left = dict(layers)
    for pattern in patterns:
        compile_pattern(key, pattern)
        matched = [here for here, there in layers.items() if ends_in(pattern, [here, there])]
        if not matched:
            raise matches_nothing(key, pattern, list(layers))
        if not any(layer in left for layer in matched):
            raise ValueError(
                f"`{key}`: `{pattern}` decides nothing, because patterns before it match all of its layers, such as "
                f"{matched[0]}, and the first that matches counts. Move it to the front, or take it out."
            )
        for layer in matched:
            left.pop(layer, None)
    return {here: by_pattern(patterns, [here, there], default) for here, there in layers.items()}
