"""Linear layers on the ops of `paddlemix.ops`."""

from __future__ import annotations

import paddle
from paddle import nn

from paddlemix import ops


class Linear(nn.Linear):
    """Paddle's linear layer, names and initial values included, computed by `ops.linear`."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Transform float[..., in] to float[..., out]."""
        return ops.linear(x, self.weight, self.bias)


def activated_linear(layer: nn.Layer, x: paddle.Tensor, activation: ops.Activation) -> paddle.Tensor:
    """`activation(layer(x))`, in one op unless something else, such as an adapter, has taken the layer's place.

    Args:
        layer: linear.
        x: float[..., in].
        activation: its name.

    Returns:
        float[..., out].
    """
    if type(layer) is Linear:
        return ops.linear(x, layer.weight, layer.bias, activation)
    return ops.ACTIVATIONS[activation](layer(x))


def linear_loss(
    layer: nn.Layer, hidden: paddle.Tensor, targets: paddle.Tensor, weights: paddle.Tensor | None
) -> paddle.Tensor:
    """Cross entropy of a head's logits, which are not held unless something else has taken the head's place.

    Args:
        layer: the head, linear.
        hidden: float[N, in].
        targets: int64[N], -100 where none is asked.
        weights: float32[N] for a weighted sum; None takes the mean.

    Returns:
        float32[].
    """
    if type(layer) is Linear and layer.bias is None:
        return ops.linear_cross_entropy(hidden, layer.weight, targets, weights)
    places = (targets != ops.IGNORED_TARGET).nonzero().flatten()
    if not places.shape[0]:
        # No empty matmul: Paddle 3.3.1 fails in its gradient where the head alone is trained.
        return (layer(hidden[:1]) * 0).astype("float32").sum()
    weights = None if weights is None else weights.index_select(places)
    return ops.token_cross_entropy(layer(hidden.index_select(places)), targets.index_select(places), weights)
