"""The patterns of adapter_config.json, by which layers have ranks and scales of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from paddlemix.peft.adapter_config import AdapterConfig, Product
from paddlemix.peft.targets import shortest_endings


def with_patterns(config: AdapterConfig, products: Mapping[str, Product]) -> AdapterConfig:
    """Give a config the patterns that stand for what is on each layer.

    Versions of PEFT differ: some look for the first key of both patterns together. So both have the same keys, and no
    layer is meant by two of them.

    Args:
        config: of the adapter; its own patterns do not matter.
        products: what is on the layers, by the names that the adapter's file has.

    Returns:
        The config; its patterns are endings of names, none where all layers have its rank and alpha.
    """
    groups: dict[Product, list[str]] = {}
    for layer, product in products.items():
        groups.setdefault(product, []).append(layer)
    groups.pop(config.product, None)
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for product, layers in groups.items():
        for ending in shortest_endings(layers, list(products)):
            ranks[ending], alphas[ending] = product
    return replace(config, rank_pattern=ranks, alpha_pattern=alphas)
