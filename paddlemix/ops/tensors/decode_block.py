"""One more token of an answer through decoder blocks."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from functools import cached_property
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


class HeldBlock:
    """A block that tokens are taken through: its weights, and the number by which the built ops know them.

    Args:
        weights: they stay where they are; numbers written into them count.
    """

    def __init__(self, weights: BlockWeights) -> None:
        self.weights = weights
        self._fits: list[int] = []

    @cached_property
    def number(self) -> int:
        """Of the block, for the built ops, which hold its weights as long as this object lives."""
        weights, nothing = self.weights, built.nothing()
        multipliers = (*weights.projections, weights.output, weights.gate, weights.up, weights.down)
        number = built.run(
            "hold_block",
            [weights.attention_norm, weights.feed_forward_norm],
            [*chain.from_iterable(map(_tensors, multipliers))],
            [nothing if bias is None else bias for bias in weights.biases],
            [*chain.from_iterable(map(_form, multipliers))],
            weights.epsilon,
        )[0].item()
        handle = built.library().handle
        assert handle is not None, "a built op has just run"
        weakref.finalize(self, handle.paddlemix_release_block, ctypes.c_int64(number))
        return number

    def check(self, hidden: int, groups: int, size: int) -> None:
        """Make sure that the weights fit.

        Args:
            hidden: width of what enters.
            groups: heads of keys.
            size: of a head.

        Raises:
            ValueError: a shape is another than theirs; the message names it.
        """
        if self._fits != [hidden, groups, size]:  # once: it is asked for each token
            _check_weights(self.weights, hidden, groups, size)
            self._fits = [hidden, groups, size]


def has_decode_blocks(x: paddle.Tensor) -> bool:
    """Tell whether `decode_blocks` is faster than its parts: built, for one token of a few rows, without gradients.

    Args:
        x: float[B, L, hidden], which enters the blocks.

    Returns:
        Whether to call it.
    """
    rows, length, _ = x.shape
    return length == 1 and rows <= MOST_ROWS and not paddle.is_grad_enabled() and built.takes(x)


def decode_blocks(
    x: paddle.Tensor,
    blocks: Sequence[HeldBlock],
    query_rotary: Rotary,
    key_rotary: Rotary,
    keys: Sequence[paddle.Tensor],
    values: Sequence[paddle.Tensor],
    length: int,
    mask: CausalMask | None = None,
) -> paddle.Tensor:
    """Take one token of each row through blocks, and its keys and values into their caches.

    What it gives has no gradients.

    Args:
        x: float[B, 1, hidden].
        blocks: one or several of the same sizes.
        query_rotary: cosines and sines float32[B, 1, D/2] by which queries turn.
        key_rotary: likewise, for keys.
        keys: of each block float[B, capacity, G, D], turned; place `length` is written.
        values: of each block float[B, capacity, G, D]; likewise.
        length: tokens that the caches hold.
        mask: hides padding among the `length + 1` tokens; None where there is none.

    Returns:
        float[B, 1, hidden].

    Raises:
        ValueError: shapes, dtypes or places do not fit, or the caches are full.
    """
    _check(x, query_rotary, key_rotary, keys, values, length, mask)
    hidden, (_, _, groups, size) = x.shape[-1], keys[0].shape
    for block in blocks:
        block.check(hidden, groups, size)
    shared = _sizes(blocks[0].weights.output)[0] // (groups * size)
    if not built.takes(x) or size > LARGEST_HEAD or shared > _MOST_SHARED:
        return decode_blocks_reference(x, blocks, query_rotary, key_rotary, keys, values, length, mask)
    return built.run(
        "decode",
        x,
        *query_rotary,
        *key_rotary,
        list(keys),
        list(values),
        built.nothing("uint8") if mask is None else mask.visible,
        [block.number for block in blocks],
        length,
    )[0]


def decode_blocks_reference(
    x: paddle.Tensor,
    blocks: Sequence[HeldBlock],
    query_rotary: Rotary,
    key_rotary: Rotary,
    keys: Sequence[paddle.Tensor],
    values: Sequence[paddle.Tensor],
    length: int,
    mask: CausalMask | None = None,
) -> paddle.Tensor:
    """Compute `decode_blocks` in its readable form."""
    for block, key, value in zip(blocks, keys, values, strict=True):
        x = _through_block(x, block.weights, query_rotary, key_rotary, key, value, length, mask)
    return x


@paddle.no_grad()
def _through_block(
    x: paddle.Tensor,
    weights: BlockWeights,
    query_rotary: Rotary,
    key_rotary: Rotary,
    keys: paddle.Tensor,
    values: paddle.Tensor,
    length: int,
    mask: CausalMask | None = None,
) -> paddle.Tensor:
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
    query_rotary: Rotary,
    key_rotary: Rotary,
    keys: Sequence[paddle.Tensor],
    values: Sequence[paddle.Tensor],
    length: int,
    mask: CausalMask | None,
) -> None:
    if x.ndim != 3 or x.shape[1] != 1:
        raise ValueError(f"`x` has shape {x.shape}; expected [B, 1, hidden].")
    rows, shape = x.shape[0], keys[0].shape
    if len(shape) != 4 or shape[0] != rows:
        raise ValueError(f"`keys` has shape {shape}; expected [{rows}, capacity, G, D].")
    for name, caches in (("keys", keys), ("values", values)):
        for cache in caches:
            check_shape(name, cache, shape)
            check_like(name, cache, x)
            if not cache.is_contiguous():
                raise ValueError(f"`{name}` does not lie in one piece; what is written to it would be lost.")
    if not 0 <= length < shape[1]:
        raise ValueError(f"`length` is {length}; the cache has room for {shape[1]} tokens.")
    for name, angle in zip(
        ("query_rotary[0]", "query_rotary[1]", "key_rotary[0]", "key_rotary[1]"),
        (*query_rotary, *key_rotary),
        strict=True,
    ):
        check_shape(name, angle, [rows, 1, shape[3] // 2])
    if mask is not None and mask.shape not in (None, [rows, length + 1]):
        raise ValueError(f"`mask` has shape {mask.shape}; expected {[rows, length + 1]}.")


def _check_weights(weights: BlockWeights, hidden: int, groups: int, size: int) -> None:
    projections = [_sizes(weight) for weight in weights.projections]
    columns, inner = sum(out for _, out in projections), _sizes(weights.gate)[-1]
    heads = columns // size - 2 * groups
    if heads < 1 or heads % groups or columns % size:
        raise ValueError(f"`projections` have shapes {projections}, which are no queries for {groups} keys of {size}.")
    check_shape("attention_norm", weights.attention_norm, [hidden])
    check_shape("feed_forward_norm", weights.feed_forward_norm, [hidden])
    for name, weight, wanted in (
        *(("projections", weight, [hidden, _sizes(weight)[-1]]) for weight in weights.projections),
        ("output", weights.output, [heads * size, hidden]),
        ("gate", weights.gate, [hidden, inner]),
        ("up", weights.up, [hidden, inner]),
        ("down", weights.down, [inner, hidden]),
    ):
        if _sizes(weight) != wanted:
            raise ValueError(f"`{name}` has shape {_sizes(weight)}; expected {wanted}.")
    for (_, out), bias in zip(projections, weights.biases, strict=True):
        if bias is not None:
            check_shape("biases", bias, [out])
