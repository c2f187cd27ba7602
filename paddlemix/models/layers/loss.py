"""The loss of a language model."""

from __future__ import annotations

from collections.abc import Callable

import paddle

from paddlemix.ops import token_cross_entropy

IGNORED_LABEL = -100


def next_token_loss(
    hidden: paddle.Tensor,
    labels: paddle.Tensor,
    head: Callable[[paddle.Tensor], paddle.Tensor],
    weights: paddle.Tensor | None = None,
) -> paddle.Tensor:
    """Mean or weighted sum over target tokens; only their logits are computed, most tokens are not asked for.

    Args:
        hidden: float[B, L, D], the decoder's last states.
        labels: int64[B, L], the token itself at each place (the shift is done here), -100 where none is asked.
        head: turns float[N, D] into logits float[N, V].
        weights: float32[B, L], by which the loss of each place's label is multiplied before all are summed; None takes
            the mean.

    Returns:
        float32[]; 0 (with gradients of 0) where no token is asked.
    """
    targets = labels[:, 1:].flatten()
    places = (targets != IGNORED_LABEL).nonzero().flatten()
    if not places.shape[0]:
        # No empty matmul: Paddle 3.3.1 fails in its gradient where the head alone is trained.
        return (head(hidden[:, 0]) * 0).astype("float32").sum()
    before = hidden[:, :-1].reshape([-1, hidden.shape[-1]])
    if weights is not None:
        weights = weights[:, 1:].flatten().index_select(places)
    return token_cross_entropy(head(before.index_select(places)), targets.index_select(places), weights)
