"""The loss of a language model."""

from __future__ import annotations

import paddle
from paddle import nn

from paddlemix import ops
from paddlemix.models.layers.linear import Linear
from paddlemix.models.layers.tensor_parallel import SplitEmbedding, SplitHead
from paddlemix.models.replace import is_plain
from paddlemix.names import IGNORED_LABEL


def next_token_loss(
    hidden: paddle.Tensor, labels: paddle.Tensor, head: nn.Layer, weights: paddle.Tensor | None = None
) -> paddle.Tensor:
    """Compute the mean or weighted sum over target tokens; only their logits are computed, most tokens have no target.

    Args:
        hidden: float[B, L, D], the decoder's last states.
        labels: int64[B, L], the token itself at each place (the shift is done here), -100 where none is asked.
        head: a linear layer from D to V, or the embedding whose weight it shares; either may be split over ranks. Its
            logits are not held, unless something else, such as an adapter, has taken the linear layer's place.
        weights: float32[B, L], by which the loss of each place's label is multiplied before all are summed; None takes
            the mean.

    Returns:
        float32[]; 0 (with gradients of 0) where no token is asked.
    """
    # Labels move, not states: the gradient of a slice takes Paddle 60 times as long on a CPU as a copy.
    targets, before = _of_next(labels, IGNORED_LABEL), hidden.reshape([-1, hidden.shape[-1]])
    weights = None if weights is None else _of_next(weights, 0)
    if isinstance(head, (SplitHead, SplitEmbedding)):
        is_embedding = isinstance(head, SplitEmbedding)
        return ops.split_linear_cross_entropy(
            before, head.weight, targets, head.group, weights, transposed=is_embedding
        )
    if isinstance(head, nn.Embedding):
        return ops.linear_cross_entropy(before, head.weight, targets, weights, transposed=True)
    if is_plain(head, Linear) and head.bias is None:
        return ops.linear_cross_entropy(before, head.weight, targets, weights)
    return _loss_of_logits(head, before, targets, weights)


def _of_next(values: paddle.Tensor, last: int) -> paddle.Tensor:
    """Give each place of [B, L] the value of the next one, and the last of each row `last`; flat."""
    ends = paddle.full([values.shape[0], 1], last, dtype=values.dtype)
    return paddle.concat([values[:, 1:], ends], axis=1).flatten()


def _loss_of_logits(
    head: nn.Layer, hidden: paddle.Tensor, targets: paddle.Tensor, weights: paddle.Tensor | None
) -> paddle.Tensor:
    places = (targets != IGNORED_LABEL).nonzero().flatten()
    if not places.shape[0]:
        # No empty matmul: Paddle 3.3.1 fails in its gradient where the head alone is trained.
        return (head(hidden[:1]) * 0).astype("float32").sum()
    weights = None if weights is None else weights.index_select(places)
    return ops.token_cross_entropy(head(hidden.index_select(places)), targets.index_select(places), weights)
