"""One more token of an answer through a whole decoder block."""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple, TypeAlias

import paddle

from paddlemix.ops.tensors import built
from paddlemix.ops.tensors.activation import swiglu_reference
from paddlemix.ops.tensors.attention import LARGEST_HEAD
from paddlemix.ops.tensors.attention_reference import attention_reference
from paddlemix.ops.tensors.checks import check_like, check_shape
from paddlemix.ops.tensors.linear import linear_reference
from paddlemix.ops.tensors.mask import CausalMask
from paddlemix.ops.tensors.norm import add_rms_norm_reference, rms_norm_reference
from paddlemix.ops.tensors.quantized.product import quantized_linear_reference
from paddlemix.ops.tensors.quantized.weight import QuantizedWeight
from paddlemix.ops.tensors.rotary import Rotary, apply_rotary_reference

# More rows are products that oneDNN computes faster than weights are read.
MOST_ROWS = 16
# Query heads that share a key head; the built op keeps a block of so many rows of scores.
_MOST_SHARED = 64
# In floating point [in, out], or held as codes.
Multiplier: TypeAlias = paddle.Tensor | QuantizedWeight


class BlockWeights(NamedTuple):
    """What a pre-norm decoder block with grouped heads and a gated feed-forward block computes with.

    Each of its products is with a weight in floating point, or with one that is held as codes.

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
    projections: tuple[Multiplier, ...]
    biases: tuple[paddle.Tensor | None, ...]
    output: Multiplier
    feed_forward_norm: paddle.Tensor
    gate: Multiplier
    up: Multiplier
    down: Multiplier
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
    shared = _sizes(weights.output)[0] // (keys.shape[2] * keys.shape[3])
    if not built.takes(x) or keys.shape[3] > LARGEST_HEAD or shared > _MOST_SHARED:
        return decode_block_reference(x, weights, query_rotary, key_rotary, keys, values, length, mask)
    nothing = built.nothing()
    multipliers = (*weights.projections, weights.output, weights.gate, weights.up, weights.down)
    return built.run(
        "decode_block",
        x,
        weights.attention_norm,
        list(chain.from_iterable(map(_tensors, multipliers))),
        [nothing if bias is None else bias for bias in weights.biases],
        *query_rotary,
        *key_rotary,
        keys,
        values,
        built.nothing("uint8") if mask is None else mask.visible,
        weights.feed_forward_norm,
        list(chain.from_iterable(map(_form, multipliers))),
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
        _multiply(normed, weight, bias) for weight, bias in zip(weights.projections, weights.biases, strict=True)
    ]
    heads = paddle.concat(projected, axis=-1).reshape([rows, 1, -1, size])
    query, key, value = heads.split([heads.shape[2] - 2 * groups, groups, groups], axis=2)
    keys[:, length : length + 1] = apply_rotary_reference(key, *key_rotary)
    values[:, length : length + 1] = value
    query = apply_rotary_reference(query, *query_rotary)
    mixed = attention_reference(query, keys[:, : length + 1], values[:, : length + 1], mask)
    attended = _multiply(mixed.reshape([rows, 1, -1]), weights.output)
    total, normed = add_rms_norm_reference(x, attended, weights.feed_forward_norm, weights.epsilon)
    inner = swiglu_reference(_multiply(normed, weights.gate), _multiply(normed, weights.up))
    return total + _multiply(inner, weights.down)


def _multiply(x: paddle.Tensor, weight: Multiplier, bias: paddle.Tensor | None = None) -> paddle.Tensor:
    if isinstance(weight, QuantizedWeight):
        return quantized_linear_reference(x, weight, bias)
    return linear_reference(x, weight, bias)


def _sizes(weight: Multiplier) -> list[int]:
    """Tell widths of what comes in and of what goes out."""
    return [*reversed(weight.shape)] if isinstance(weight, QuantizedWeight) else weight.shape


def _tensors(weight: Multiplier) -> list[paddle.Tensor]:
    return weight.tensors if isinstance(weight, QuantizedWeight) else [weight]


def _form(weight: Multiplier) -> tuple[int, int]:
    """Tell the built op the columns of a weight, and its block, 0 in floating point."""
    return (weight.shape[0], weight.block) if isinstance(weight, QuantizedWeight) else (weight.shape[1], 0)


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
    projections = [_sizes(weight) for weight in weights.projections]
    columns, inner = sum(out for _, out in projections), _sizes(weights.gate)[-1]
    heads = columns // size - 2 * groups
    if heads < 1 or heads % groups or columns % size:
        raise ValueError(f"`projections` have shapes {projections}, which are no queries for {groups} keys of {size}.")
    check_shape("attention_norm", weights.attention_norm, [hidden])
    check_shape("feed_forward_norm", weights.feed_forward_norm, [hidden])
    for name, weight, wanted in (
        *(("projections", weight, [hidden, sizes[-1]]) for weight, sizes in zip(weights.projections, projections)),
        ("output", weights.output, [heads * size, hidden]),
        ("gate", weights.gate, [hidden, inner]),
        ("up", weights.up, [hidden, inner]),
        ("down", weights.down, [inner, hidden]),
    ):
        if _sizes(weight) != wanted:
            raise ValueError(f"`{name}` has shape {_sizes(weight)}; expected {wanted}.")
    for sizes, bias in zip(projections, weights.biases, strict=True):
        if bias is not None:
            check_shape("biases", bias, sizes[1:])
