"""Attention with grouped heads: over a padded batch, over packed segments, and against a cache."""

from __future__ import annotations

import paddle

from paddlemix.ops.tensors import built
from paddlemix.ops.tensors.attention_reference import attention_reference, segment_attention_reference
from paddlemix.ops.tensors.checks import check_like, check_shape
from paddlemix.ops.tensors.mask import CausalMask
from paddlemix.ops.tensors.segments import CausalSegments, Segments, Visible

# The built op keeps a block of queries of one head in the first-level cache.
LARGEST_HEAD = 128


def attention(
    query: paddle.Tensor,
    key: paddle.Tensor,
    value: paddle.Tensor,
    mask: Visible = None,
) -> paddle.Tensor:
    """Compute softmax attention in which each key head serves a group of query heads.

    Args:
        query: float[B, L, H, D].
        key: float[B, S, G, D], H a multiple of G.
        value: float[B, S, G, D].
        mask: None lets everything see everything. A CausalMask hides what is after a query, and padding; a query that
            sees nothing weighs all keys alike. CausalSegments are the samples of a pack, which then is the one row of
            the batch: each is attended to causally and by itself. Or float32[L, S], [B, 1, L, S] or [1, 1, L, S], added
            to the scores.

    Returns:
        float[B, L, H, D]; the softmax is taken in float32.

    Raises:
        ValueError: shapes, dtypes or places do not fit, or the pack is not the one row of the batch.

    Source: Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762; grouped heads: Ainslie et al., "GQA",
    2023, arXiv:2305.13245.
    """
    _check(query, key, value)
    _check_mask(mask, query, key)
    if query.shape[-1] > LARGEST_HEAD or not built.takes(query):
        return attention_reference(query, key, value, mask)
    none, no_ends = built.nothing(), built.nothing("int32")
    if isinstance(mask, CausalSegments):
        return _run(query, key, value, built.nothing("uint8"), none, mask.cu_seqlens, causal=True)
    if isinstance(mask, CausalMask):
        return _run(query, key, value, mask.visible, none, no_ends, causal=True)
    bias = none if mask is None else mask.reshape([-1, *mask.shape[-2:]])
    return _run(query, key, value, built.nothing("uint8"), bias, no_ends, causal=False)


def segment_attention(
    query: paddle.Tensor, key: paddle.Tensor, value: paddle.Tensor, segments: Segments
) -> paddle.Tensor:
    """Compute full attention inside each segment of a packed sequence, none across.

    Args:
        query: float[N, H, D].
        key: float[N, G, D], H a multiple of G.
        value: float[N, G, D].
        segments: whose tokens add up to N.

    Returns:
        float[N, H, D].

    Raises:
        ValueError: shapes, dtypes or places do not fit, or the segments do not add up.
    """
    row = query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0)
    _check(*row)
    if not segments.total == query.shape[0] == key.shape[0]:
        raise ValueError(
            f"`segments` have the lengths {segments.lengths}; expected some that add up to the {query.shape[0]} "
            f"queries and {key.shape[0]} keys."
        )
    if query.shape[-1] > LARGEST_HEAD or not built.takes(query):
        return segment_attention_reference(query, key, value, segments)
    return _run(*row, built.nothing("uint8"), built.nothing(), segments.cu_seqlens, causal=False).squeeze(0)


def _run(
    query: paddle.Tensor,
    key: paddle.Tensor,
    value: paddle.Tensor,
    visible: paddle.Tensor,
    bias: paddle.Tensor,
    ends: paddle.Tensor,
    *,
    causal: bool,
) -> paddle.Tensor:
    span = key.shape[1]
    if not visible.size:
        key, value = _with_room(key), _with_room(value)
    return built.run("attention", query, key, value, visible, bias, ends, causal, span)[0]


def _with_room(x: paddle.Tensor) -> paddle.Tensor:
    """Find the whole cache that a view of its first keys is of: the op wants dense rows, and a view would be copied."""
    dense = [x.shape[2] * x.shape[3], x.shape[3], 1]
    if not x.stop_gradient or x.offset or x.is_contiguous() or x.strides[1:] != dense or x.strides[0] % dense[0]:
        return x
    room = x.strides[0] // dense[0]
    return paddle.as_strided(x, [x.shape[0], room, *x.shape[2:]], x.strides) if room > x.shape[1] else x


def _check(query: paddle.Tensor, key: paddle.Tensor, value: paddle.Tensor) -> None:
    for name, x in (("query", query), ("key", key)):
        if x.ndim != 4:
            raise ValueError(f"`{name}` has shape {x.shape}; expected [B, L, H, D].")
        check_like(name, x, query)
    check_like("value", value, query)
    check_shape("value", value, key.shape)
    check_shape("key", key, [query.shape[0], key.shape[1], key.shape[2], query.shape[3]])
    if not key.shape[2] or query.shape[2] % key.shape[2]:
        raise ValueError(f"`query` has {query.shape[2]} heads, which is no multiple of the {key.shape[2]} of `key`.")


def _check_mask(mask: Visible, query: paddle.Tensor, key: paddle.Tensor) -> None:
    batch, length, span = query.shape[0], query.shape[1], key.shape[1]
    if isinstance(mask, CausalSegments):
        if [batch, length, span] != [1, mask.total, mask.total]:
            raise ValueError(
                f"a pack of {mask.total} tokens was expected as one row, not {batch} of {length} with {span} keys."
            )
    elif isinstance(mask, CausalMask):
        if mask.shape not in (None, [batch, span]):
            raise ValueError(f"`mask` has shape {mask.shape}; expected {[batch, span]}.")
    elif mask is not None:
        if mask.dtype != paddle.float32:
            raise ValueError(f"`mask` is {mask.dtype}; expected float32.")
        if mask.shape not in ([length, span], [batch, 1, length, span], [1, 1, length, span]):
            wanted = f"[{length}, {span}] or [{batch}, 1, {length}, {span}]"
            raise ValueError(f"`mask` has shape {mask.shape}; expected {wanted}.")
