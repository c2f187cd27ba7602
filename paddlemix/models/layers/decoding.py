"""Decoder blocks that write an answer token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import paddle
from paddle import nn

from paddlemix import ops
from paddlemix.models.layers.linear import Linear
from paddlemix.models.layers.norm import RMSNorm
from paddlemix.models.replace import is_plain
from paddlemix.quantization.linear import QuantizedLinear

if TYPE_CHECKING:
    from paddlemix.contract import LayerCache


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

    def decode(
        self,
        x: paddle.Tensor,
        query_rotary: ops.Rotary,
        key_rotary: ops.Rotary,
        mask: ops.Visible,
        cache: LayerCache,
    ) -> paddle.Tensor | None:
        """Take one more token of each row through the block, in one op.

        Args:
            x: float[B, L, hidden].
            query_rotary: cosines and sines float32[B, L, D/2] by which queries turn.
            key_rotary: likewise, for keys.
            mask: hides padding.
            cache: what the rows have said so far; counts the token in.

        Returns:
            float[B, L, hidden]; None where the block's layers have to be called: there is more than one token, or
            something else, such as an adapter, has taken a layer's place or listens to it.
        """
        if not cache.length or not ops.has_decode_block(x) or not self._are_plain():
            return None
        assert mask is None or isinstance(mask, ops.CausalMask), "what has a cache is no pack"
        length = cache.length
        return ops.decode_block(x, self._weights(), query_rotary, key_rotary, *cache.open(1), length, mask)

    def _are_plain(self) -> bool:
        linear = (*self.projections, self.output, self.gate, self.up, self.down)
        norms = (self.attention_norm, self.feed_forward_norm)
        return all(is_plain(layer, Linear) or is_plain(layer, QuantizedLinear) for layer in linear) and all(
            is_plain(layer, RMSNorm) for layer in norms
        )

    def _weights(self) -> ops.BlockWeights:
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


def _weight(layer: nn.Layer) -> paddle.Tensor | ops.QuantizedWeight:
    return layer.codes if type(layer) is QuantizedLinear else layer.weight
