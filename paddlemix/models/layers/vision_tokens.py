"""Vision tokens among text tokens."""

from __future__ import annotations

from typing import Any

import paddle
from paddle.autograd import PyLayer

from paddlemix.models.layers.autocast import without_autocast


class Meeting(PyLayer):
    """Embeddings and a tower's tokens, unchanged, whose gradients go on from one place.

    What follows in the backward pass is then the same whatever the batch shows. With sharding stage 3 all ranks put
    weights together on the way, and must come to each of them in the same order.
    """

    @staticmethod
    def forward(ctx: Any, embeds: paddle.Tensor, features: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Pass float[B, L, D] and float[N, D] on."""
        ctx.trained = [not one.stop_gradient for one in (embeds, features)]
        return paddle.assign(embeds), paddle.assign(features)

    @staticmethod
    def backward(ctx: Any, *gradients: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        """Pass the gradients on to those that need them."""
        return tuple(gradient if trained else None for gradient, trained in zip(gradients, ctx.trained, strict=True))


def place_vision(embeds: paddle.Tensor, places: paddle.Tensor, features: paddle.Tensor) -> paddle.Tensor:
    """Overwrite the placeholders' embeddings with a vision tower's tokens, in order.

    Args:
        embeds: float[B, L, D].
        places: bool[B, L], true where a vision token belongs.
        features: float[N, D], those of all rows, concatenated.

    Returns:
        float[B, L, D] in the dtype of `embeds`.

    Raises:
        ValueError: there are not N places.
    """
    indices = token_places(places)
    if indices.shape[0] != features.shape[0]:
        raise ValueError(
            f"{indices.shape[0]} vision tokens stand in the sequences, but the images or videos make "
            f"{features.shape[0]}."
        )
    flat = embeds.reshape([-1, embeds.shape[-1]])
    with without_autocast():
        placed = paddle.scatter(flat, indices, features.astype(flat.dtype))
    return placed.reshape(embeds.shape)


def token_places(places: paddle.Tensor) -> paddle.Tensor:
    """Turn bool[B, L] into the indices int64[N] of its true places, counted over rows."""
    return places.flatten().nonzero().flatten()
