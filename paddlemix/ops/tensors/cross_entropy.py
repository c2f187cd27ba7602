"""Next-token loss."""

from __future__ import annotations

from typing import Literal

import numpy as np
import paddle
import paddle.nn.functional as F

from paddlemix.names import IGNORED_LABEL
from paddlemix.ops.tensors import built
from paddlemix.ops.tensors.checks import check_like, check_shape
from paddlemix.ops.tensors.linear import is_rounded, linear_reference, product_dtype


def token_cross_entropy(
    logits: paddle.Tensor, targets: paddle.Tensor, weights: paddle.Tensor | None = None
) -> paddle.Tensor:
    """Compute the mean cross entropy over tokens, or their weighted sum.

    Args:
        logits: float[N, V].
        targets: int64[N], every one a token.
        weights: float32[N], by which each token's is multiplied before all are summed; None takes the mean.

    Returns:
        float32[], computed in float32; 0 (with gradients of 0) when N is 0.
    """
    if targets.shape[0] == 0:
        return logits.astype("float32").sum()
    if weights is None:
        return F.cross_entropy(logits.astype("float32"), targets)
    return (F.cross_entropy(logits.astype("float32"), targets, reduction="none").flatten() * weights).sum()


def linear_cross_entropy(
    hidden: paddle.Tensor,
    weight: paddle.Tensor,
    targets: paddle.Tensor,
    weights: paddle.Tensor | None = None,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    transposed: bool = False,
    ignore_index: int = IGNORED_LABEL,
    all_count: bool = False,
) -> paddle.Tensor:
    """Compute the cross entropy of the logits `hidden weight`, of which the built op holds a few rows at a time.

    The built op computes the gradients together with the loss and hands them out once: do not go backward twice. In
    float16, in which gradients of a loss that is not scaled vanish, it computes the logits once more in the backward
    pass instead.

    Under autocast products are computed in its dtype, as those of linear layers. A weight in float32 is rounded once a
    call, and gets its gradient in float32; what is left in float32 is multiplied in TF32 where Paddle's products are.

    Args:
        hidden: float[N, D].
        weight: float[D, V], or [V, D] where `transposed`.
        targets: int64[N]; those that are `ignore_index` cost nothing.
        weights: float32[N], by which each token's cost is multiplied before all are summed, in place of `reduction`.
        reduction: "mean" over the targets that count, or "sum".
        transposed: whether the weight is held the other way round, as an embedding is.
        ignore_index: the target that does not count.
        all_count: the caller knows that every target is a token. Else a card is asked, and waited for.

    Returns:
        float32[], computed in float32; 0 (with gradients of 0) when no target counts.

    Raises:
        ValueError: shapes, dtypes or places do not fit, a target is no token, or there is no such reduction.
    """
    _check(hidden, weight, targets, weights, reduction, transposed)
    if not all_count:
        vocabulary = weight.shape[0 if transposed else 1]
        hidden, targets, weights = tokens_that_count(
            hidden, targets, weights, vocabulary=vocabulary, ignore_index=ignore_index
        )
    if not targets.shape[0]:
        return no_targets_loss(hidden, weight)
    if weights is None:
        share = 1.0 / targets.shape[0] if reduction == "mean" else 1.0
        weights = paddle.full(targets.shape, share, dtype="float32")
    hidden = _as_product_takes(hidden)
    if not built.takes(hidden, weight, on_cuda=True, is_mixed=hidden.dtype != paddle.float32):
        return token_cross_entropy(linear_reference(hidden, weight, transposed=transposed), targets, weights)
    is_asked = [paddle.is_grad_enabled() and not one.stop_gradient for one in (hidden, weight)]
    if hidden.dtype == paddle.float16:
        return built.run("late_linear_cross_entropy", hidden, weight, targets, weights, transposed, *is_asked)[0]
    return built.run("linear_cross_entropy", hidden, weight, targets, weights, transposed, is_rounded(), *is_asked)[0]


def _as_product_takes(hidden: paddle.Tensor) -> paddle.Tensor:
    """Round hidden states in float32 as autocast does for a product."""
    dtype = product_dtype()
    return hidden if dtype is None or hidden.dtype != paddle.float32 else hidden.astype(dtype)


def no_targets_loss(hidden: paddle.Tensor, weight: paddle.Tensor) -> paddle.Tensor:
    """Return float32[] of 0 with gradients of 0 for hidden states and the head's matrix."""
    # No empty matmul: Paddle 3.3.1 fails in its gradient where the head alone is trained.
    return (hidden[:1].sum() + weight[:1, :1].sum()).astype("float32") * 0.0


def tokens_that_count(
    hidden: paddle.Tensor,
    targets: paddle.Tensor,
    weights: paddle.Tensor | None,
    *,
    vocabulary: int,
    ignore_index: int = IGNORED_LABEL,
) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor | None]:
    """Leave out the rows whose target is ignored; a card is asked, and waited for.

    Args:
        hidden: float[N, D].
        targets: int64[N].
        weights: float32[N], or None.
        vocabulary: how many tokens there are.
        ignore_index: the target that does not count.

    Returns:
        The three of those that count. Where none does the hidden states are as they were, so that gradients of zero
        reach them.

    Raises:
        ValueError: a target is no token.
    """
    places = (targets != ignore_index).nonzero().flatten()
    if not places.shape[0]:
        return hidden, targets[:0], None
    if places.shape[0] < targets.shape[0]:
        hidden, targets = hidden.index_select(places), targets.index_select(places)
        weights = None if weights is None else weights.index_select(places)
    check_targets(targets.numpy(), vocabulary)
    return hidden, targets, weights


def _check(
    hidden: paddle.Tensor,
    weight: paddle.Tensor,
    targets: paddle.Tensor,
    weights: paddle.Tensor | None,
    reduction: str,
    transposed: bool,
) -> None:
    if reduction not in ("mean", "sum"):
        raise ValueError(f"`reduction` is {reduction!r}; expected mean or sum.")
    check_like("weight", weight, hidden)
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[int(transposed)]:
        raise ValueError(
            f"`weight` has shape {weight.shape}, which does not multiply `hidden` of shape {hidden.shape}."
        )
    check_shape("targets", targets, hidden.shape[:1])
    if targets.dtype != paddle.int64:
        raise ValueError(f"`targets` is {targets.dtype}; expected int64.")
    if weights is not None:
        check_shape("weights", weights, targets.shape)
        if weights.dtype != paddle.float32:
            raise ValueError(f"`weights` is {weights.dtype}; expected float32.")


def check_targets(targets: np.ndarray, vocabulary: int) -> None:
    """Refuse targets, int64[N], that are no tokens of a vocabulary of so many."""
    if not targets.size:
        return
    least, most = int(targets.min()), int(targets.max())
    if least < 0 or most >= vocabulary:
        raise ValueError(f"`targets` run from {least} to {most}; expected tokens from 0 to {vocabulary - 1}.")
