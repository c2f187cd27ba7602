"""Attention masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import paddle

from paddlemix.ops import CausalMask, CausalSegments, Visible

if TYPE_CHECKING:
    from paddlemix.contract import LayerCache


def known_mask(attention_mask: paddle.Tensor | np.ndarray | None) -> paddle.Tensor | np.ndarray | None:
    """Copy a mask from a card to the host, once a batch: kernels have to be told where padding stands.

    Args:
        attention_mask: int64 or bool[B, S].

    Returns:
        The mask, an array where it was on a card.
    """
    is_elsewhere = isinstance(attention_mask, paddle.Tensor) and not attention_mask.place.is_cpu_place()
    return np.asarray(attention_mask) if is_elsewhere else attention_mask


def causal_mask(length: int, span: int, attention_mask: paddle.Tensor | np.ndarray | None) -> CausalMask | None:
    """Say what each of the last `length` of `span` tokens must not see: what follows it, and padding.

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


def visible_tokens(
    length: int, span: int, attention_mask: paddle.Tensor | np.ndarray | None, samples: CausalSegments | None
) -> Visible:
    """Say what each token of a batch may see: a row's earlier tokens, or those of its sample in a pack.

    Args:
        length: queries; they are the last tokens of the span.
        span: keys.
        attention_mask: int64 or bool[B, span], 0 where a token is padding, or None when there is none.
        samples: of a pack; None of a batch of rows.

    Returns:
        The mask or the segments; None when every query sees every key.

    Raises:
        ValueError: `attention_mask` is not for `span` keys.
    """
    return causal_mask(length, span, attention_mask) if samples is None else samples


def check_pack_inputs(
    position_ids: paddle.Tensor | None,
    attention_mask: paddle.Tensor | np.ndarray | None,
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
