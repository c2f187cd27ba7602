"""Additive attention masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle

from paddlemix.ops.segments import HIDDEN

if TYPE_CHECKING:
    from paddlemix.models.base import LayerCache


def causal_mask(length: int, span: int, attention_mask: paddle.Tensor | None) -> paddle.Tensor | None:
    """What each of the last `length` of `span` tokens must not see: what follows it, and padding.

    Args:
        length: queries; they are the last tokens of the span.
        span: keys.
        attention_mask: int64 or bool[B, span], 0 where a token is padding, or None when there is none.

    Returns:
        float32 of 0 (seen) and -1e9 (hidden): [length, span], or [B, 1, length, span] where there is padding; None when
        every query sees every key.
    """
    if length == 1 and attention_mask is None:
        return None
    visible = paddle.ones([length, span], dtype="bool").tril(span - length)
    if attention_mask is not None:
        visible = paddle.logical_and(visible, attention_mask.astype("bool").unsqueeze([1, 2]))
    return (1.0 - visible.astype("float32")) * HIDDEN


def check_pack_inputs(
    position_ids: paddle.Tensor | None,
    attention_mask: paddle.Tensor | None,
    past_key_values: list[LayerCache] | None,
) -> None:
    """Refuse what a pack of samples cannot go with.

    Args:
        position_ids: a model's input beside `cu_seqlens`.
        attention_mask: likewise.
        past_key_values: likewise.

    Raises:
        ValueError: there are no positions, or there is padding or a cache.
    """
    if position_ids is None or attention_mask is not None or past_key_values:
        raise ValueError(
            "`cu_seqlens` needs `position_ids` that restart at every sample, and allows neither `attention_mask` nor "
            "`past_key_values`: a pack has no padding and is not continued."
        )
