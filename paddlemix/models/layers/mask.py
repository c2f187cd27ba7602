"""Attention masks."""

from __future__ import annotations

import paddle

from paddlemix.ops import CausalMask


def causal_mask(length: int, span: int, attention_mask: paddle.Tensor | None) -> CausalMask | None:
    """What each of the last `length` of `span` tokens must not see: what follows it, and padding.

    Args:
        length: queries; they are the last tokens of the span.
        span: keys.
        attention_mask: int64 or bool[B, span], 0 where a token is padding, or None when there is none.

    Returns:
        The mask; None when every query sees every key.

    Raises:
        ValueError: `attention_mask` is not for `span` keys.
    """
    if attention_mask is not None and attention_mask.shape[-1] != span:
        raise ValueError(f"`attention_mask` has shape {attention_mask.shape}; expected {span} in its last axis.")
    return None if length == 1 and attention_mask is None else CausalMask(attention_mask)
