"""One more token of an answer through a whole decoder block."""

from __future__ import annotations

from typing import NamedTuple

import paddle

from paddlemix.ops.tensors import built
from paddlemix.ops.tensors.activation import swiglu_reference
from paddlemix.ops.tensors.attention import LARGEST_HEAD
from paddlemix.ops.tensors.attention_reference import attention_reference
from paddlemix.ops.tensors.checks import check_like, check_shape
from paddlemix.ops.tensors.linear import linear_reference
from paddlemix.ops.tensors.mask import CausalMask
from paddlemix.ops.tensors.norm import add_rms_norm_reference, rms_norm_reference
from paddlemix.ops.tensors.rotary import Rotary, apply_rotary_reference

# More rows are products that oneDNN computes faster than weights are read.
MOST_ROWS = 16
# Query heads that share a key head; the built op keeps a block of so many rows of scores.
_MOST_SHARED = 64


class BlockWeights(NamedTuple):
    """What a pre-norm decoder block with grouped heads and a gated feed-forward block computes with.

    Attributes:
        attention_norm: float[hidden].
        projections: float[hidden, columns] each; side by side they give [heads + 2 groups, D]: queries, keys, values.
        biases: float[columns] each, or None.
        output: float[heads * D, hidden].
        feed_forward_norm: float[hidden].
        gate: float[hidden, inner].
        up: float[hidden, inner].
        down: float[inner, hidden].
        epsilon: of both norms.
    """

    attention_norm: paddle.Tensor
    projections: tuple[paddle.Tensor, ...]
    biases: tuple[paddle.Tensor | None, ...]
    output: paddle.Tensor
    feed_forward_norm: paddle.Tensor
    gate: paddle.Tensor
    up: paddle.Tensor
    down: paddle.Tensor
    epsilon: float


def has_decode_block(x: paddle.Tensor) -> bool:
    """Tell whether `decode_block` is faster than its parts: built, for one token each of a few rows, without gradients.

    Args:
        x: float[B, L, hidden], which enters the block.

    Returns:
        Whether to call it.
    """
    rows, length, _ = x.shape
    return length == 1 and rows <= MOST_ROWS and not paddle.is_grad_enabled() and built.takes(x)


def decode_block(
    x: paddle.Tensor,
    weights: BlockWeights,
    query_rotary: Rotary,
    key_rotary: Rotary,
    keys: paddle.Tensor,
    values: paddle.Tensor,
    length: int,
    mask: CausalMask | None = None,
) -> paddle.Tensor:
    """Take one token of each row through a block, and its key and value into the cache.

    What it gives has no gradients.

    Args:
        x: float[B, 1, hidden].
        weights: the block's.
        query_rotary: cosines and sines float32[B, 1, D/2] by which queries turn.
        key_rotary: likewise, for keys.
        keys: float[B, capacity, G, D], turned; place `length` is written.
        values: float[B, capacity, G, D]; likewise.
        length: tokens that the cache holds.
        mask: hides padding among the `length + 1` tokens; None where there is none.

    Returns:
        float[B, 1, hidden].

    Raises:
        ValueError: shapes, dtypes or places do not fit, or the cache is full.
    """
    _check(x, weights, query_rotary, key_rotary, keys, values, length, mask)
    shared = weights.output.shape[0] // (keys.shape[2] * keys.shape[3])
    if not built.takes(x) or keys.shape[3] > LARGEST_HEAD or shared > _MOST_SHARED:
        return decode_block_reference(x, weights, query_rotary, key_rotary, keys, values, length, mask)
    nothing = built.nothing()
    return built.run(
        "decode_block",
        x,
        weights.attention_norm,
        list(weights.projections),
        [nothing if bias is None else bias for bias in weights.biases],
        *query_rotary,
        *key_rotary,
        keys,
        values,
        built.nothing("uint8") if mask is None else mask.visible,
        weights.output,
        weights.feed_forward_norm,
        weights.gate,
        weights.up,
        weights.down,
        weights.epsilon,
        length,
    )[0]


@paddle.no_grad()
def decode_block_reference(
    x: paddle.Tensor,
    weights: BlockWeights,
    query_rotary: Rotary,
    key_rotary: Rotary,
    keys: paddle.Tensor,
    values: paddle.Tensor,
    length: int,
    mask: CausalMask | None = None,
) -> paddle.Tensor:
    """Compute `decode_block` in its readable form."""
    rows, _, groups, size = keys.shape
    normed = rms_norm_reference(x, weights.attention_norm, weights.epsilon)
    projected = [
        linear_reference(normed, weight, bias) for weight, bias in zip(weights.projections, weights.biases, strict=True)
    ]
    heads = paddle.concat(projected, axis=-1).reshape([rows, 1, -1, size])
    query, key, value = heads.split([heads.shape[2] - 2 * groups, groups, groups], axis=2)
    keys[:, length : length + 1] = apply_rotary_reference(key, *key_rotary)
    values[:, length : length + 1] = value
    query = apply_rotary_reference(query, *query_rotary)
    mixed = attention_reference(query, keys[:, : length + 1], values[:, : length + 1], mask)
    attended = linear_reference(mixed.reshape([rows, 1, -1]), weights.output)
    total, normed = add_rms_norm_reference(x, attended, weights.feed_forward_norm, weights.epsilon)
    inner = swiglu_reference(linear_reference(normed, weights.gate), linear_reference(normed, weights.up))
    return total + linear_reference(inner, weights.down)


def _check(
    x: paddle.Tensor,
    weights: BlockWeights,
    query_rotary: Rotary,
    key_rotary: Rotary,
    keys: paddle.Tensor,
    values: paddle.Tensor,
    length: int,
    mask: CausalMask | None,
) -> None:
    if x.ndim != 3 or x.shape[1] != 1:
        raise ValueError(f"`x` has shape {x.shape}; expected [B, 1, hidden].")
    rows, _, hidden = x.shape
    if keys.ndim != 4 or keys.shape[0] != rows:
        raise ValueError(f"`keys` has shape {keys.shape}; expected [{rows}, capacity, G, D].")
    check_shape("values", values, keys.shape)
    for name, cache in (("keys", keys), ("values", values)):
        check_like(name, cache, x)
        if not cache.is_contiguous():
            raise ValueError(f"`{name}` does not lie in one piece; what is written to it would be lost.")
    if not 0 <= length < keys.shape[1]:
        raise ValueError(f"`length` is {length}; the cache has room for {keys.shape[1]} tokens.")
    for name, angle in zip(
        ("query_rotary[0]", "query_rotary[1]", "key_rotary[0]", "key_rotary[1]"),
        (*query_rotary, *key_rotary),
        strict=True,
    ):
        check_shape(name, angle, [rows, 1, keys.shape[3] // 2])
    if mask is not None and mask.shape not in (None, [rows, length + 1]):
        raise ValueError(f"`mask` has shape {mask.shape}; expected {[rows, length + 1]}.")
    _check_weights(weights, hidden, keys)


def _check_weights(weights: BlockWeights, hidden: int, keys: paddle.Tensor) -> None:
    groups, size = keys.shape[2:]
    columns, inner = sum(weight.shape[1] for weight in weights.projections), weights.gate.shape[-1]
    heads = columns // size - 2 * groups
    if heads < 1 or heads % groups or columns % size:
        shapes = [weight.shape for weight in weights.projections]
        raise ValueError(f"`projections` have shapes {shapes}, which are no queries for {groups} keys of {size}.")
    for name, wanted in (
        ("attention_norm", [hidden]),
        ("output", [heads * size, hidden]),
        ("feed_forward_norm", [hidden]),
        ("gate", [hidden, inner]),
        ("up", [hidden, inner]),
        ("down", [inner, hidden]),
    ):
        check_shape(name, getattr(weights, name), wanted)
    for weight, bias in zip(weights.projections, weights.biases, strict=True):
        check_shape("projections", weight, [hidden, weight.shape[1]])
        if bias is not None:
            check_shape("biases", bias, weight.shape[1:])
