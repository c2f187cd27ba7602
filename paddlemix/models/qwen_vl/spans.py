"""Where images stand among the tokens of Qwen-VL.

An image is a start token, `n_queries` placeholders and an end token. What the placeholders are says nothing (the
published tokenizer spells a path with them): they are never read.
"""

from __future__ import annotations

import numpy as np


def image_places(input_ids: np.ndarray, start_id: int, n_queries: int) -> np.ndarray:
    """Find the placeholders of all images.

    Args:
        input_ids: int64[B, L].
        start_id: in front of an image; `start_id + 1` is behind it.
        n_queries: placeholders of an image.

    Returns:
        bool[B, L]; its true places are a multiple of `n_queries`.

    Raises:
        ValueError: a span does not hold `n_queries` placeholders, or an end token closes none.
    """
    places = np.zeros(input_ids.shape, dtype=bool)
    for row, ids in enumerate(input_ids):
        end = -1
        for start in np.flatnonzero(ids == start_id):
            if start > end:
                end = _end_of_span(ids, row, start, n_queries)
                places[row, start + 1 : end] = True
        _check_ends(ids, row, places[row], start_id + 1)
    return places


def _end_of_span(ids: np.ndarray, row: int, start: int, n_queries: int) -> int:
    """Find the place of the end token, right behind the placeholders."""
    start_id, end = ids[start], start + n_queries + 1
    if end < len(ids) and ids[end] == start_id + 1:
        return end
    ends = np.flatnonzero(ids[start:] == start_id + 1)
    found = f"{ends[0] - 1} before the end token {start_id + 1}" if len(ends) else "no end token behind it"
    raise ValueError(
        f"the image that begins at place {start} of row {row} has {found}; expected {n_queries} placeholders and the "
        "end token. Keep an image's tokens whole."
    )


def _check_ends(ids: np.ndarray, row: int, is_placeholder: np.ndarray, end_id: int) -> None:
    for place in np.flatnonzero((ids == end_id) & ~is_placeholder):
        if place == 0 or not is_placeholder[place - 1]:
            raise ValueError(
                f"place {place} of row {row} holds the end token {end_id}, but no image begins before it. Keep a "
                "image's tokens whole."
            )
