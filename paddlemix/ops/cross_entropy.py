"""Next-token loss."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F


def token_cross_entropy(
    logits: paddle.Tensor, targets: paddle.Tensor, weights: paddle.Tensor | None = None
) -> paddle.Tensor:
    """Mean cross entropy over tokens, or their weighted sum.

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
