"""Decoder blocks that write an answer token by token."""

from __future__ import annotations

from typing import Any, NamedTuple

import paddle
from paddle import nn

from paddlemix import ops
from paddlemix.models.layers.linear import Linear
from paddlemix.models.layers.norm import RMSNorm
from paddlemix.models.replace import is_plain
from paddlemix.quantization.linear import QuantizedLinear


class DecoderParts(NamedTuple):
    """The layers of a pre-norm decoder block, by what they do; every family names them in its own way.

    Attributes:
        attention_norm: before attention.
        projections: to queries, keys and values, one for all or three.
        output: behind attention.
        feed_forward_norm: before the feed-forward block.
        gate: the half of the feed-forward block that is activated.
        up: the other half.
        down: back to the hidden size.
    """

    attention_norm: nn.Layer
    projections: tuple[nn.Layer, ...]
    output: nn.Layer
    feed_forward_norm: nn.Layer
    gate: nn.Layer
    up: nn.Layer
    down: nn.Layer

    def weights(self) -> ops.BlockWeights | None:
        """Return what the block computes with; None where something else, such as an adapter, stands in a place."""
        linear = (*self.projections, self.output, self.gate, self.up, self.down)
        norms = (self.attention_norm, self.feed_forward_norm)
        if not all(is_plain(layer, Linear) or is_plain(layer, QuantizedLinear) for layer in linear):
            return None
        if not all(is_plain(layer, RMSNorm) for layer in norms):
            return None
        return ops.BlockWeights(
            self.attention_norm.weight,
            tuple(map(_weight, self.projections)),
            tuple(layer.bias for layer in self.projections),
            _weight(self.output),
            self.feed_forward_norm.weight,
            _weight(self.gate),
            _weight(self.up),
            _weight(self.down),
            self.attention_norm.epsilon,
        )


class HeldLayers:
    """A decoder block as the op that takes tokens through it knows it, for as long as its layers stay what they are.

    To ask each layer anew what it is would take longer than the op: 60 to 80 us a block and token.

    Args:
        block: a decoder block, and below it the layers that have layers.
        *below: those.
        weights: what they compute with.
    """

    def __init__(self, block: nn.Layer, *below: nn.Layer, weights: ops.BlockWeights) -> None:
        self.held = ops.HeldBlock(weights)
        parents = (block, *below)
        children = [(one._sub_layers, name, layer) for one in parents for name, layer in one._sub_layers.items()]
        self._children = children
        self._layers = [block, *(layer for _, _, layer in children)]
        self._values = [value for layer in self._layers for value in _values_of(layer)]

    def are_current(self) -> bool:
        """Tell whether all layers and weights are in their places, and nothing listens to a layer."""
        return (
            all(places[name] is layer for places, name, layer in self._children)
            and not any(layer._forward_pre_hooks or layer._forward_post_hooks for layer in self._layers)
            and all(places[name] is value for places, name, value in self._values)
        )

    def __deepcopy__(self, memo: Any) -> None:
        """Let a copy of a model find out about its own layers."""
        return


def _values_of(layer: nn.Layer) -> list[tuple[dict[str, Any], str, Any]]:
    """Return where a layer keeps what it computes with, under which name, and what it is now."""
    places = [(layer._parameters, name, value) for name, value in layer._parameters.items()]
    return [*places, (layer.__dict__, "_weight", layer.codes)] if type(layer) is QuantizedLinear else places


def _weight(layer: nn.Layer) -> paddle.Tensor | ops.QuantizedWeight:
    return layer.codes if type(layer) is QuantizedLinear else layer.weight
