"""Additive attention masks."""

from __future__ import annotations

import paddle

from paddlemix.ops.segments import HIDDEN


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
