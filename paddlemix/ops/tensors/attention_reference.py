"""The readable form of attention, which is also what runs in half precision, and where flash attention cannot."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F

from paddlemix.ops.tensors.cards.flash import flash_attention, flash_attention_fits, flash_segment_attention
from paddlemix.ops.tensors.mask import CausalMask
from paddlemix.ops.tensors.segments import CausalSegments, SegmentGroup, Segments, Visible


def attention_reference(
    query: paddle.Tensor,
    key: paddle.Tensor,
    value: paddle.Tensor,
    mask: Visible = None,
) -> paddle.Tensor:
    """Compute `paddlemix.ops.attention` in its readable form, and on GPUs by flash attention where it can."""
    if flash_attention_fits(query):
        mixed = flash_attention(query, key, value, mask)
        if mixed is not None:
            return mixed
    if isinstance(mask, CausalSegments):
        return _packed_attention(query, key, value, mask)
    batch, length, heads, size = query.shape
    groups, span = key.shape[2], key.shape[1]
    if isinstance(mask, CausalMask):
        mask = mask.dense(length, span)
    # The query heads of a group are concatenated along the tokens, so that keys and values need no copy per head.
    query = _heads_first(query * size**-0.5).reshape([batch, groups, -1, size])
    scores = paddle.matmul(query, _heads_first(key), transpose_y=True).astype("float32")
    if mask is not None:
        # A mask for all rows alike is added flat: Paddle's CPU broadcasting over inner axes is 9 times slower
        # (32 x 6 x 150 x 150: 14.1 against 1.6 ms).
        shape = [batch * heads, -1] if mask.ndim == 2 else [batch, heads, length, span]
        scores = (scores.reshape(shape) + (mask.flatten() if mask.ndim == 2 else mask)).reshape(scores.shape)
    weights = F.softmax(scores, axis=-1).astype(value.dtype)
    mixed = paddle.matmul(weights, _heads_first(value))
    return _heads_first(mixed.reshape([batch, heads, length, size]))


def _heads_first(x: paddle.Tensor) -> paddle.Tensor:
    """Swap axes 1 and 2 of float[B, L, H, D], or swap them back."""
    if x.place.is_cpu_place():
        # Paddle's CPU transposes number by number; this copies whole rows (16 x 150 x 6 x 32: 0.3 against 3.6 ms).
        return paddle.stack(x.unbind(axis=2), axis=1)
    return x.transpose([0, 2, 1, 3])


def segment_attention_reference(
    query: paddle.Tensor, key: paddle.Tensor, value: paddle.Tensor, segments: Segments
) -> paddle.Tensor:
    """Compute `paddlemix.ops.segment_attention` in its readable form."""
    if flash_attention_fits(query):
        return flash_segment_attention(query, key, value, segments, causal=False)
    lengths = segments.lengths
    if len(set(lengths)) == 1:
        batched = [x.reshape([len(lengths), lengths[0], *x.shape[1:]]) for x in (query, key, value)]
        return attention_reference(*batched).reshape(query.shape)
    parts = zip(*(x.split(lengths, axis=0) for x in (query, key, value)), strict=True)
    mixed = [attention_reference(*(x.unsqueeze(0) for x in part)).squeeze(0) for part in parts]
    return paddle.concat(mixed, axis=0)


def _packed_attention(
    query: paddle.Tensor, key: paddle.Tensor, value: paddle.Tensor, segments: CausalSegments
) -> paddle.Tensor:
    query, key, value = query.squeeze(0), key.squeeze(0), value.squeeze(0)
    mixed = [_group_attention(query, key, value, group) for group in segments.groups]
    return paddle.concat(mixed).index_select(segments.way_back).unsqueeze(0)


def _group_attention(
    query: paddle.Tensor, key: paddle.Tensor, value: paddle.Tensor, group: SegmentGroup
) -> paddle.Tensor:
    """Attend in the group's padded batch, float[count * longest, H, D]; causality alone hides what pads its rows."""

    def as_batch(x: paddle.Tensor) -> paddle.Tensor:
        return x.index_select(group.places).reshape([group.count, group.longest, *x.shape[1:]])

    return attention_reference(as_batch(query), as_batch(key), as_batch(value), group.mask).flatten(0, 1)
