"""How long a training sample may be, and what of a longer one may be cut off."""

from __future__ import annotations

import numpy as np

from paddlemix.conversation import Conversation, OverlongError


def fit_length(
    ids: np.ndarray,
    trained: np.ndarray,
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
        trained: bool[L], which of them are trained.
        conversation: what the sample was made from.
        max_length: tokens the sample may have.
        truncate_text: cut text from the end of a longer one; else, and where that is not enough, it is refused.
        vision_end: tokens up to the end of the last image or video, 0 without one; they are never cut.
        remedy: what a user may do beside raising `max_length`.

    Returns:
        `ids` and `trained`, of `max_length` at most.

    Raises:
        OverlongError: the sample is longer, and is not to be cut, or would lose an image or all targets.
    """
    if len(ids) <= max_length:
        return ids, trained
    if not truncate_text:
        obstacle = 'it is not cut unless `on_overlong` is "truncate_text"'
    elif vision_end > max_length:
        obstacle = f"its last image or video ends at token {vision_end}, and only text behind it may be cut"
    elif not trained[1:max_length].any():
        obstacle = "of what a model is to say nothing would be left if it were cut"
    else:
        return ids[:max_length], trained[:max_length]
    raise OverlongError(
        conversation.source,
        f"{len(ids)} tokens, but `max_length` is {max_length}, and {obstacle}. Raise it, or {remedy}",
    )
