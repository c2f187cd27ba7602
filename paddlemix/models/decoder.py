"""The language model that families share: pre-norm transformer blocks with rotary positions and a gated MLP.

A family says its numbers and the published names of its layers in a `DecoderShape`; everything else that has to know a
decoder (how it is split over ranks, what it keeps in training) is read from the shape.

Sources: Touvron et al., "LLaMA: Open and Efficient Foundation Language Models", 2023, arXiv:2302.13971 (the block);
Ainslie et al., "GQA: Training Generalized Multi-Query Transformer Models from Multi-Head Checkpoints", 2023,
arXiv:2305.13245 (fewer heads of keys than of queries).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import paddle
from paddle import nn

from paddlemix.contract import LayerCache
from paddlemix.models.layers.autocast import without_autocast
from paddlemix.models.layers.decoding import DecoderParts, HeldLayers
from paddlemix.models.layers.linear import Linear
from paddlemix.models.layers.mlp import QWEN2_MLP, GatedMLP, MLPNames
from paddlemix.models.layers.norm import RMSNorm
from paddlemix.models.layers.recompute import run_block
from paddlemix.models.replace import is_plain
from paddlemix.ops import (
    CausalMask,
    HeldBlock,
    Rotary,
    Visible,
    apply_rotary,
    attention,
    cached_attention,
    decode_blocks,
    has_cached_attention,
    has_decode_blocks,
    rotate_pair,
)


@dataclass(frozen=True)
class DecoderNames:
    """What a decoder's layers are called in published checkpoints; those of Qwen2 unless a family says otherwise.

    Attributes:
        embedding: of the decoder.
        blocks: likewise.
        norm: likewise, behind the last block.
        attention_norm: of a block.
        attention: likewise.
        feed_forward_norm: likewise.
        feed_forward: likewise.
        projections: of attention, to queries, keys and values: three layers, or one for all.
        output: of attention.
        query_norm: of attention, where there is one.
        key_norm: likewise.
        mlp: of the layers of the feed-forward layer.
    """

    embedding: str = "embed_tokens"
    blocks: str = "layers"
    norm: str = "norm"
    attention_norm: str = "input_layernorm"
    attention: str = "self_attn"
    feed_forward_norm: str = "post_attention_layernorm"
    feed_forward: str = "mlp"
    projections: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    output: str = "o_proj"
    query_norm: str = "q_norm"
    key_norm: str = "k_norm"
    mlp: MLPNames = QWEN2_MLP


@dataclass(frozen=True)
class DecoderShape:
    """The numbers of a decoder.

    Attributes:
        vocab_size: rows of the embedding.
        hidden_size: width of what runs past the blocks.
        intermediate_size: inner width of a block's MLP.
        layers: how many blocks.
        heads: of queries.
        kv_heads: of keys and values; `heads` is a multiple of it.
        head_dim: width of a head; `heads` times it need not be `hidden_size`.
        norm_epsilon: of every norm.
        projection_bias: whether queries, keys and values have biases.
        qk_norm: whether each head's query and key are normalised before they are turned (Qwen3).
        padding_id: the token whose embedding is never trained; None where there is none.
        names: of the layers.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_epsilon: float
    projection_bias: bool = True
    qk_norm: bool = False
    padding_id: int | None = None
    names: DecoderNames = DecoderNames()

    def __post_init__(self) -> None:
        assert self.heads % self.kv_heads == 0, "a config checks its heads"
        assert len(self.names.projections) == 3 or self.heads == self.kv_heads, "one projection is cut into thirds"

    @property
    def query_width(self) -> int:
        """Width of all heads of queries."""
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Width of all heads of keys, and of values."""
        return self.kv_heads * self.head_dim


class Rotaries(NamedTuple):
    """Cosines and sines by which a batch's queries and keys turn, float32[B, L, head_dim / 2] each.

    Attributes:
        query: of queries.
        key: of keys; the same object where both turn alike.
    """

    query: Rotary
    key: Rotary


class Entering(NamedTuple):
    """Features that are added to the hidden states behind some blocks (DeepStack).

    Attributes:
        places: int64[N], which of the batch's tokens, counted over rows.
        features: by block, float[N, hidden].

    Source: Meng et al., "DeepStack: Deeply Stacking Visual Tokens is Surprisingly Simple and Effective for LMMs", 2024,
    arXiv:2406.04334.
    """

    places: paddle.Tensor
    features: Mapping[int, paddle.Tensor]

    def add(self, x: paddle.Tensor, block: int) -> paddle.Tensor:
        """Add what enters behind a block to float[B, L, hidden]."""
        if block not in self.features:
            return x
        flat = x.reshape([-1, x.shape[-1]])
        added = paddle.index_add(flat, self.places, 0, self.features[block].astype(flat.dtype))
        return added.reshape(x.shape)


class DecoderAttention(nn.Layer):
    """Causal attention with grouped heads.

    Args:
        shape: of the decoder.
    """

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self._names, self._head_dim = shape.names, shape.head_dim
        widths = (shape.query_width, shape.key_width, shape.key_width)
        if len(self._names.projections) == 1:
            widths = (sum(widths),)  # type: ignore[assignment]
        for name, width in zip(self._names.projections, widths, strict=True):
            setattr(self, name, Linear(shape.hidden_size, width, bias_attr=None if shape.projection_bias else False))
        setattr(self, self._names.output, Linear(shape.query_width, shape.hidden_size, bias_attr=False))
        self._has_norms = shape.qk_norm
        if shape.qk_norm:
            setattr(self, self._names.query_norm, RMSNorm(shape.head_dim, shape.norm_epsilon))
            setattr(self, self._names.key_norm, RMSNorm(shape.head_dim, shape.norm_epsilon))

    @property
    def projections(self) -> tuple[nn.Layer, ...]:
        """The layers in front of attention, whatever stands in their places now."""
        return tuple(getattr(self, name) for name in self._names.projections)

    @property
    def output(self) -> nn.Layer:
        """The layer behind attention."""
        return getattr(self, self._names.output)

    @property
    def decodes_in_one_op(self) -> bool:
        """Whether the op that takes one token through a block knows all of this layer."""
        return not self._has_norms

    def forward(self, x: paddle.Tensor, rotaries: Rotaries, mask: Visible, cache: LayerCache | None) -> paddle.Tensor:
        """Mix float[B, L, hidden] with itself and with what `cache` holds."""
        batch, length, _ = x.shape
        query, key, value = self._heads(x)
        if self._has_norms:
            query, key = getattr(self, self._names.query_norm)(query), getattr(self, self._names.key_norm)(key)
        if rotaries.query is rotaries.key:
            query, key = rotate_pair(query, key, *rotaries.query)
        else:
            query, key = apply_rotary(query, *rotaries.query), apply_rotary(key, *rotaries.key)
        return self.output(self._mixed(query, key, value, mask, cache).reshape([batch, length, -1]))

    def _mixed(
        self,
        query: paddle.Tensor,
        key: paddle.Tensor,
        value: paddle.Tensor,
        mask: Visible,
        cache: LayerCache | None,
    ) -> paddle.Tensor:
        """Attend to the tokens and to what `cache` holds; it holds them too then."""
        if cache is None:
            return attention(query, key, value, mask)
        if cache.length and has_cached_attention(query):
            assert mask is None or isinstance(mask, CausalMask), "what has a cache is no pack"
            length = cache.length
            return cached_attention(query, key, value, *cache.open(1), length, mask, cache.rows)
        return attention(query, *cache.extend(key, value), mask)

    def _heads(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """Project to queries, keys and values, float[B, L, heads, head_dim] each.

        Heads are not counted from the shape: where ranks share the layer, this one has some of them.
        """
        batch, length, _ = x.shape
        projected = [project(x) for project in self.projections]
        if len(projected) == 1:
            return projected[0].reshape([batch, length, 3, -1, self._head_dim]).unbind(axis=2)
        return [one.reshape([batch, length, -1, self._head_dim]) for one in projected]


class DecoderBlock(nn.Layer):
    """One pre-norm transformer block.

    Args:
        shape: of the decoder.
    """

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self._names = names = shape.names
        self._held: HeldLayers | None = None
        setattr(self, names.attention_norm, RMSNorm(shape.hidden_size, shape.norm_epsilon, for_products=True))
        setattr(self, names.attention, DecoderAttention(shape))
        setattr(self, names.feed_forward_norm, RMSNorm(shape.hidden_size, shape.norm_epsilon, for_products=True))
        setattr(self, names.feed_forward, GatedMLP(shape.hidden_size, shape.intermediate_size, names.mlp))

    def forward(self, x: paddle.Tensor, rotaries: Rotaries, mask: Visible, cache: LayerCache | None) -> paddle.Tensor:
        """Transform float[B, L, hidden]."""
        attention_norm, mix, feed_forward_norm, feed_forward = self._parts()
        x, normed = feed_forward_norm.after_adding(x, mix(attention_norm(x), rotaries, mask, cache))
        return x + feed_forward(normed)

    def held(self) -> HeldBlock | None:
        """Return the block as the op that takes tokens through blocks knows it.

        Returns:
            What the op is given; None where the layers have to be called: something else, such as an adapter, has taken
            a layer's place or listens to it.
        """
        if self._held is None or not self._held.are_current():
            self._held = self._hold()
        return None if self._held is None else self._held.held

    def _hold(self) -> HeldLayers | None:
        attention_norm, mix, feed_forward_norm, feed_forward = self._parts()
        if not (
            is_plain(self, DecoderBlock)
            and is_plain(mix, DecoderAttention)
            and mix.decodes_in_one_op
            and is_plain(feed_forward, GatedMLP)
        ):
            return None
        parts = DecoderParts(attention_norm, mix.projections, mix.output, feed_forward_norm, *feed_forward.layers)
        weights = parts.weights()
        return None if weights is None else HeldLayers(self, mix, feed_forward, weights=weights)

    def _parts(self) -> tuple[nn.Layer, nn.Layer, nn.Layer, nn.Layer]:
        names = self._names
        parts = names.attention_norm, names.attention, names.feed_forward_norm, names.feed_forward
        return tuple(getattr(self, name) for name in parts)


class Decoder(nn.Layer):
    """Token embedding, blocks, final norm: `embed`, `run` of any stretch of blocks, `finish`.

    Args:
        shape: its numbers and names.

    Attributes:
        shape: likewise.
        recompute: whether training computes the blocks' activations twice and does not keep them.
    """

    shape: DecoderShape
    recompute: bool

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.shape, self.recompute = shape, False
        names = shape.names
        setattr(self, names.embedding, nn.Embedding(shape.vocab_size, shape.hidden_size))
        setattr(self, names.blocks, nn.LayerList([DecoderBlock(shape) for _ in range(shape.layers)]))
        setattr(self, names.norm, RMSNorm(shape.hidden_size, shape.norm_epsilon, for_products=True))

    @property
    def embedding(self) -> nn.Layer:
        """The token embedding, whatever stands in its place now."""
        return getattr(self, self.shape.names.embedding)

    @property
    def blocks(self) -> nn.LayerList:
        """The blocks, in their order."""
        return getattr(self, self.shape.names.blocks)

    def embed(self, input_ids: paddle.Tensor) -> paddle.Tensor:
        """Look up int64[B, L] as float[B, L, hidden]; a padding token's embedding is looked up, never trained."""
        padding = self.shape.padding_id
        with without_autocast():
            embeds = self.embedding(input_ids)
        if padding is None or embeds.stop_gradient:
            return embeds
        return paddle.where((input_ids == padding).unsqueeze(-1), embeds.detach(), embeds)

    def run(
        self,
        x: paddle.Tensor,
        rotaries: Rotaries,
        mask: Visible,
        caches: Sequence[LayerCache | None],
        *,
        start: int = 0,
        stop: int | None = None,
        entering: Entering | None = None,
    ) -> paddle.Tensor:
        """Take hidden states through some of the blocks.

        Args:
            x: float[B, L, hidden].
            rotaries: of the tokens.
            mask: which tokens each of them must not see.
            caches: one for each of all blocks, or None.
            start: the first block.
            stop: the block to stop before; None for all that follow.
            entering: what is added behind some blocks.

        Returns:
            float[B, L, hidden].
        """
        blocks = list(zip(self.blocks, caches, strict=True))
        places = range(len(blocks))[start:stop]
        first = caches[places.start] if places else None
        if entering is None and first is not None and first.length and has_decode_blocks(x):
            return _decoded(blocks[start:stop], x, rotaries, mask)
        for index in places:
            block, cache = blocks[index]
            x = run_block(block, x, rotaries, mask, cache, recompute=self.recompute and cache is None)
            x = x if entering is None else entering.add(x, index)
        return x

    def finish(self, x: paddle.Tensor) -> paddle.Tensor:
        """Normalise float[B, L, hidden] behind the last block."""
        return getattr(self, self.shape.names.norm)(x)

    def forward(
        self,
        x: paddle.Tensor,
        rotaries: Rotaries,
        mask: Visible,
        caches: Sequence[LayerCache | None],
        entering: Entering | None = None,
    ) -> paddle.Tensor:
        """Turn embeddings float[B, L, hidden] into hidden states of the same shape; see `run`."""
        return self.finish(self.run(x, rotaries, mask, caches, entering=entering))


def _decoded(
    blocks: list[tuple[nn.Layer, LayerCache | None]], x: paddle.Tensor, rotaries: Rotaries, mask: Visible
) -> paddle.Tensor:
    """Take one more token of each row through blocks: those that the op knows in one, other ones layer by layer."""
    assert mask is None or isinstance(mask, CausalMask), "what has a cache is no pack"
    together: list[tuple[HeldBlock, LayerCache]] = []
    for block, cache in blocks:
        held = block.held() if isinstance(block, DecoderBlock) and cache is not None else None
        if held is not None and cache is not None:
            together.append((held, cache))
            continue
        x = block(_through(together, x, rotaries, mask), rotaries, mask, cache)
        together = []
    return _through(together, x, rotaries, mask)


def _through(
    together: list[tuple[HeldBlock, LayerCache]], x: paddle.Tensor, rotaries: Rotaries, mask: CausalMask | None
) -> paddle.Tensor:
    if not together:
        return x
    length = together[0][1].length
    keys, values = zip(*(cache.open(1) for _, cache in together), strict=True)
    return decode_blocks(x, [held for held, _ in together], *rotaries, keys, values, length, mask)
