"""Next-token loss."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F


def token_cross_entropy(logits: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
    """Mean cross entropy over tokens.

    Args:
        logits: float[N, V].
        targets: int64[N], every one a token.

    Returns:
        float32[], computed in float32; 0 (with gradients of 0) when N is 0.
    """
    if targets.shape[0] == 0:
        return logits.astype("float32").sum()
    return F.cross_entropy(logits.astype("float32"), targets)
