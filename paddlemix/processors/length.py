"""How long a training sample may be, and what of a longer one may be cut off."""

from __future__ import annotations

import numpy as np

from paddlemix.conversation import Conversation, OverlongError


def fit_length(
    ids: np.ndarray,
    weights: np.ndarray,
    conversation: Conversation,
    *,
    max_length: int,
    truncate_text: bool,
    vision_end: int,
    remedy: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Hold a sample to its length.

    Args:
        ids: int64[L].
        weights: float32[L], what each of them weighs; 0 is not learned.
        conversation: what the sample was made from.
        max_length: tokens the sample may have.
        truncate_text: cut text from the end of a longer one; else, and where that is not enough, it is refused.
        vision_end: tokens up to the end of the last image or video, 0 without one; they are never cut.
        remedy: what a user may do beside raising `max_length`.

    Returns:
        `ids` and `weights`, of `max_length` at most.

    Raises:
        OverlongError: the sample is longer, and is not to be cut, or would lose an image or all targets.
    """
    if len(ids) <= max_length:
        return ids, weights
    check_length(len(ids), vision_end, conversation, max_length=max_length, truncate_text=truncate_text, remedy=remedy)
    if weights[1:].any() and not weights[1:max_length].any():
        obstacle = "of what a model is to say nothing would be left if it were cut"
        raise _overlong(len(ids), conversation, max_length, obstacle, remedy)
    return ids[:max_length], weights[:max_length]


def check_length(
    tokens: int, vision_end: int, conversation: Conversation, *, max_length: int, truncate_text: bool, remedy: str
) -> None:
    """Refuse a sample that is too long as far as counts tell, before its ids are made: a record may ask for billions.

    Args:
        tokens: of the sample.
        vision_end: see `fit_length`.
        conversation: likewise.
        max_length: likewise.
        truncate_text: likewise.
        remedy: likewise.

    Raises:
        OverlongError: the sample is longer, and is not to be cut, or would lose an image.
    """
    if tokens <= max_length:
        return
    if not truncate_text:
        obstacle = 'it is not cut unless `on_overlong` is "truncate_text"'
    elif vision_end > max_length:
        obstacle = f"its last image or video ends at token {vision_end}, and only text behind it may be cut"
    else:
        return
    raise _overlong(tokens, conversation, max_length, obstacle, remedy)


def _overlong(tokens: int, conversation: Conversation, max_length: int, obstacle: str, remedy: str) -> OverlongError:
    return OverlongError(
        conversation.source,
        f"{tokens} tokens, but `max_length` is {max_length}, and {obstacle}. Raise it, or {remedy}",
    )
