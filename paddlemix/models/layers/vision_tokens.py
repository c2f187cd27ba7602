"""Vision tokens among text tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
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
    """Overwrite the placeholders' embeddings with a vision tower's tokens.

    Args:
        embeds: float[B, L, D].
        places: int64[N], which of the batch's tokens, counted over rows, each vision token takes the place of.
        features: float[N, D].

    Returns:
        float[B, L, D] in the dtype of `embeds`.
    """
    assert places.shape[0] == features.shape[0], (places.shape, features.shape)
    flat = embeds.reshape([-1, embeds.shape[-1]])
    with without_autocast():
        placed = paddle.scatter(flat, places, features.astype(flat.dtype))
    return placed.reshape(embeds.shape)


def find_places(input_ids: np.ndarray, token_id: int, count: int) -> np.ndarray:
    """Find where the vision tokens of one kind belong.

    Args:
        input_ids: int64[B, L].
        token_id: stands for one vision token each.
        count: how many of them the images or videos make.

    Returns:
        int64[count], counted over rows.

    Raises:
        ValueError: there are not so many places.
    """
    places = np.flatnonzero(input_ids == token_id)
    if len(places) != count:
        raise ValueError(f"{len(places)} vision tokens stand in the sequences, but the images or videos make {count}.")
    return places
