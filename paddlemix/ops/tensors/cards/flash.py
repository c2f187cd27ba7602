"""Attention by Paddle's flash attention, which holds no scores.

Its kernel takes half precision on cards of compute capability 8.0 (Ampere) and later. What it cannot compute keeps its
scores: float32, older cards, masks of any numbers, and padding that stands among a row's tokens.

Source: Dao, "FlashAttention-2", 2023, arXiv:2307.08691.
"""

from __future__ import annotations

import logging
from functools import cache

import paddle
from paddle.nn.attention import SDPBackend, sdpa_kernel
from paddle.nn.functional import flash_attention as kernels

from paddlemix._environment import is_older_than_ampere
from paddlemix.ops.tensors.mask import CausalMask, Padding
from paddlemix.ops.tensors.segments import CausalSegments, Segments, Visible

logger = logging.getLogger(__name__)

HALVES = (paddle.float16, paddle.bfloat16)
# What the kernel takes: heads of at most so many numbers, a multiple of the second.
_LARGEST_HEAD, _HEAD_STEP = 256, 8


def flash_attention_fits(query: paddle.Tensor) -> bool:
    """Tell whether flash attention takes float[..., H, D]."""
    size = query.shape[-1]
    return (
        query.place.is_gpu_place()
        and query.dtype in HALVES
        and size <= _LARGEST_HEAD
        and size % _HEAD_STEP == 0
        and _card_takes_it()
    )


@cache
def _card_takes_it() -> bool:
    """Tell whether the card has flash attention; warn once where it has not."""
    if is_older_than_ampere():
        logger.warning(
            "Flash attention needs a card of compute capability 8.0 (Ampere) or later: attention holds all of its "
            "scores here, whose memory grows with the square of the length. A smaller `max_length` keeps it low."
        )
    return not is_older_than_ampere()


def flash_attention(
    query: paddle.Tensor, key: paddle.Tensor, value: paddle.Tensor, mask: Visible
) -> paddle.Tensor | None:
    """Compute `paddlemix.ops.attention` where the kernel can.

    What is computed for padding is finite and means nothing: padding behind a row's tokens sees them and the padding
    before it, padding before them sees padding. No token sees any of it.

    Args:
        query: half[B, L, H, D], which `flash_attention_fits`.
        key: half[B, S, G, D].
        value: half[B, S, G, D].
        mask: as `paddlemix.ops.attention` takes it.

    Returns:
        half[B, L, H, D]; None where the mask is one of numbers, or has padding among a row's tokens.
    """
    if mask is None:
        return _whole(query, key, value, causal=False)
    if isinstance(mask, CausalSegments):
        pack = query.squeeze(0), key.squeeze(0), value.squeeze(0)
        return flash_segment_attention(*pack, mask, causal=True).unsqueeze(0)
    if not isinstance(mask, CausalMask) or (mask.shape is not None and mask.padding is None):
        return None
    length, span = query.shape[1], key.shape[1]
    if length < span:
        # Where there are fewer queries than keys, Paddle's kernel of version 2 takes the first query for the one that
        # sees the first key alone, that of version 3 the last query for the one that sees all. So the queries of what a
        # cache holds are made up; nothing reads what they see.
        before = paddle.zeros([query.shape[0], span - length, *query.shape[2:]], dtype=query.dtype)
        query = paddle.concat([before, query], axis=1)
    mixed = _causal(query, key, value, mask)
    return mixed[:, span - length :] if length < span else mixed


def _causal(query: paddle.Tensor, key: paddle.Tensor, value: paddle.Tensor, mask: CausalMask) -> paddle.Tensor:
    """Attend causally, as many queries as keys."""
    if mask.padding is None or mask.padding.is_behind:
        return _whole(query, key, value, causal=True)
    # Each stretch of tokens and of padding is attended to by itself: nothing has to be gathered and put back.
    rows = query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)
    return flash_segment_attention(*rows, mask.padding, causal=True).reshape(query.shape)


def _whole(query: paddle.Tensor, key: paddle.Tensor, value: paddle.Tensor, *, causal: bool) -> paddle.Tensor:
    """Attend in rows of one length."""
    # Paddle's function of this name computes with products and holds scores, and says nothing, where a flag of its
    # build does not say that it has the kernel.
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return kernels.flash_attention(query, key, value, causal=causal)[0]


def flash_segment_attention(
    query: paddle.Tensor,
    key: paddle.Tensor,
    value: paddle.Tensor,
    segments: Segments | CausalSegments | Padding,
    *,
    causal: bool,
) -> paddle.Tensor:
    """Attend inside each segment.

    Args:
        query: half[N, H, D], which `flash_attention_fits`.
        key: half[N, G, D].
        value: half[N, G, D].
        segments: whose lengths add up to N.
        causal: whether a token sees nothing after itself.

    Returns:
        half[N, H, D].
    """
    ends, longest, scale = segments.cu_seqlens, max(segments.lengths), query.shape[-1] ** -0.5
    mixed, _ = kernels.flash_attn_unpadded(query, key, value, ends, ends, longest, longest, scale, causal=causal)
    return mixed
