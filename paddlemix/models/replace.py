"""Layers of a model in whose place others are put: adapters, parts that ranks share, quantised ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

from paddle import nn


def replace_layer(model: nn.Layer, name: str, make: Callable[[nn.Layer], nn.Layer]) -> nn.Layer:
    """Put another layer in the place of one.

    Args:
        model: changed in place.
        name: of the layer, dotted.
        make: makes the new layer of the old one, whose parameters it usually takes over.

    Returns:
        The new layer.
    """
    *path, last = name.split(".")
    parent = reduce(getattr, path, model)
    made = make(getattr(parent, last))
    setattr(parent, last, made)
    return made


def put_layer(model: nn.Layer, name: str, layer: nn.Layer) -> None:
    """Put a layer that is there already in the place of the one of that name."""
    replace_layer(model, name, lambda _: layer)


def is_plain(layer: nn.Layer, kind: type[nn.Layer]) -> bool:
    """Tell whether a layer is what the model put there, and no hook waits for its call.

    What knows a layer's parameters may then compute with them in one op and need not call it.
    """
    return type(layer) is kind and not layer._forward_pre_hooks and not layer._forward_post_hooks
