"""The loss of a language model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import paddle
from paddle import nn

from paddlemix import ops
from paddlemix.handover import Layout
from paddlemix.models.layers.linear import Linear
from paddlemix.models.layers.tensor_parallel import SplitEmbedding, SplitHead
from paddlemix.models.replace import is_plain
from paddlemix.names import IGNORED_LABEL

# Names in a layout.
_PLACES, _TOKENS, _WEIGHTS = "targets.places", "targets.tokens", "targets.weights"


class Targets(NamedTuple):
    """The tokens that a batch asks a model to say.

    Attributes:
        places: int64[N], which of the batch's tokens, counted over rows, are followed by them.
        tokens: int64[N].
        weights: float32[N], by which the loss of each is multiplied before all are summed; None takes the mean.
    """

    places: paddle.Tensor
    tokens: paddle.Tensor
    weights: paddle.Tensor | None

    @classmethod
    def of(cls, layout: Layout) -> Targets:
        """Take them from the layout of a batch with labels."""
        weights = layout.tensor(_WEIGHTS) if _WEIGHTS in layout else None
        return cls(layout.tensor(_PLACES), layout.tensor(_TOKENS), weights)


def find_targets(labels: np.ndarray, weights: np.ndarray | None, vocabulary: int) -> dict[str, np.ndarray]:
    """Find a batch's targets.

    Args:
        labels: int64[B, L], the token itself at each place (the shift is done here), -100 where none is asked.
        weights: float32[B, L], by which the loss of each place's label is multiplied; None takes the mean.
        vocabulary: how many tokens the model tells apart.

    Returns:
        What `Targets.of` reads.

    Raises:
        ValueError: a label is neither a token nor -100.
    """
    rows, columns = np.nonzero(labels[:, 1:] != IGNORED_LABEL)
    tokens = labels[rows, columns + 1]
    ops.check_targets(tokens, vocabulary)
    found = {_PLACES: rows * labels.shape[1] + columns, _TOKENS: tokens}
    return found if weights is None else {**found, _WEIGHTS: weights[rows, columns + 1]}


def next_token_loss(hidden: paddle.Tensor, targets: Targets, head: nn.Layer) -> paddle.Tensor:
    """Compute the mean or weighted sum over target tokens; only their logits are computed, most tokens have no target.

    Args:
        hidden: float[B, L, D], the decoder's last states.
        targets: of the batch.
        head: a linear layer from D to V, or the embedding whose weight it shares; either may be split over ranks. Its
            logits are not held, unless something else, such as an adapter, has taken the linear layer's place.

    Returns:
        float32[]; 0 (with gradients of 0) where no token is asked.
    """
    places, tokens, weights = targets
    flat = hidden.reshape([-1, hidden.shape[-1]])
    before = flat.index_select(places) if places.shape[0] else flat[:0]  # gradients of zero flow back through it
    if isinstance(head, (SplitHead, SplitEmbedding)):
        is_embedding = isinstance(head, SplitEmbedding)
        return ops.split_linear_cross_entropy(
            before, head.weight, tokens, head.group, weights, transposed=is_embedding, all_count=True
        )
    if isinstance(head, nn.Embedding):
        return ops.linear_cross_entropy(before, head.weight, tokens, weights, transposed=True, all_count=True)
    if is_plain(head, Linear) and head.bias is None:
        return ops.linear_cross_entropy(before, head.weight, tokens, weights, all_count=True)
    if not places.shape[0]:
        # No empty matmul: Paddle 3.3.1 fails in its gradient where the head alone is trained.
        return (head(flat[:1]) * 0).astype("float32").sum()
    return ops.token_cross_entropy(head(before), tokens, weights)
