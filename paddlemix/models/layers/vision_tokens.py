"""Vision tokens among text tokens."""

from __future__ import annotations

import paddle


def place_vision(embeds: paddle.Tensor, places: paddle.Tensor, features: paddle.Tensor) -> paddle.Tensor:
    """Overwrite the placeholders' embeddings with a vision tower's tokens, in order.

    Args:
        embeds: float[B, L, D].
        places: bool[B, L], true where a vision token belongs.
        features: float[N, D], those of all rows one behind the other.

    Returns:
        float[B, L, D] in the dtype of `embeds`.

    Raises:
        ValueError: there are not N places.
    """
    indices = places.flatten().nonzero().flatten()
    if indices.shape[0] != features.shape[0]:
        raise ValueError(
            f"{indices.shape[0]} vision tokens stand in the sequences, but the pictures or videos make "
            f"{features.shape[0]}."
        )
    flat = embeds.reshape([-1, embeds.shape[-1]])
    return paddle.scatter(flat, indices, features.astype(flat.dtype)).reshape(embeds.shape)
