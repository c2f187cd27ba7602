"""Next-token loss of a vocabulary that lies on several ranks."""

from __future__ import annotations

from typing import Any

import paddle
from paddle.autograd import PyLayer
from paddle.distributed import ReduceOp, all_reduce
from paddle.distributed.communication.group import Group

from paddlemix.ops.tensors.collectives import copy_to_ranks
from paddlemix.ops.tensors.cross_entropy import no_targets_loss, tokens_that_count
from paddlemix.ops.tensors.linear import linear


def split_linear_cross_entropy(
    hidden: paddle.Tensor,
    weight: paddle.Tensor,
    targets: paddle.Tensor,
    group: Group,
    weights: paddle.Tensor | None = None,
    *,
    transposed: bool = False,
    all_count: bool = False,
) -> paddle.Tensor:
    """Compute `linear_cross_entropy` where each rank holds an equal part of the vocabulary, in the order of the ranks.

    No rank ever holds more logits than those of its part. Nothing as large as the logits is sent: of each token the
    ranks tell one another the largest logit, the sum of exponentials, and the target's logit.

    Args:
        hidden: float[N, D], the same on all ranks.
        weight: float[D, V / ranks], or [V / ranks, D] where `transposed`; each rank's own.
        targets: int64[N], tokens of the whole vocabulary; those that are -100 cost nothing.
        group: the ranks.
        weights: float32[N], by which each token's cost is multiplied before all are summed; None takes the mean.
        transposed: whether the weight is held the other way round, as an embedding is.
        all_count: the caller knows that every target is a token. Else a card is asked, and waited for.

    Returns:
        float32[], the same on all ranks; 0 (with gradients of 0) when no target counts.

    Raises:
        ValueError: a target is no token.
    """
    hidden = copy_to_ranks(hidden, group)
    if not all_count:
        vocabulary = weight.shape[0 if transposed else 1] * group.nranks
        hidden, targets, weights = tokens_that_count(hidden, targets, weights, vocabulary=vocabulary)
    if not targets.shape[0]:
        return no_targets_loss(hidden, weight)
    shares = paddle.full(targets.shape, 1.0 / targets.shape[0], dtype="float32") if weights is None else weights
    logits = linear(hidden, weight, transposed=transposed)
    return _SplitCrossEntropy.apply(logits.astype("float32"), targets, shares, group)


class _SplitCrossEntropy(PyLayer):
    @staticmethod
    def forward(
        ctx: Any, logits: paddle.Tensor, targets: paddle.Tensor, shares: paddle.Tensor, group: Group
    ) -> paddle.Tensor:
        peaks = logits.max(axis=-1, keepdim=True)
        all_reduce(peaks, op=ReduceOp.MAX, group=group)
        shifted = logits - peaks
        places = targets - group.rank * logits.shape[-1]
        is_mine = ((places >= 0) & (places < logits.shape[-1])).astype("float32").unsqueeze(-1)
        places = places.clip(0, logits.shape[-1] - 1).unsqueeze(-1)
        asked = paddle.take_along_axis(shifted, places, axis=-1) * is_mine
        exponentials = shifted.exp_()
        sums = paddle.concat([exponentials.sum(axis=-1, keepdim=True), asked], axis=-1)
        all_reduce(sums, group=group)
        total, asked = sums.split(2, axis=-1)
        ctx.save_for_backward(exponentials.divide_(total), places, is_mine, shares)
        return ((total.log() - asked).flatten() * shares).sum()

    @staticmethod
    def backward(ctx: Any, upstream: paddle.Tensor) -> paddle.Tensor:
        probabilities, places, is_mine, shares = ctx.saved_tensor()
        gradient = paddle.put_along_axis(probabilities, places, -is_mine, axis=-1, reduce="add")
        return gradient * (shares * upstream).unsqueeze(-1)
