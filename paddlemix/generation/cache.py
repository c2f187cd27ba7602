"""The keys and values of one sequence batch, in memory allocated once."""

from __future__ import annotations

import paddle


class KVCache:
    """One layer's cache; it holds `length` tokens, of which the first call of `extend` brought `prefilled`.

    Args:
        capacity: tokens it can hold.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = self.prefilled = 0
        self._key: paddle.Tensor | None = None
        self._value: paddle.Tensor | None = None

    def extend(self, key: paddle.Tensor, value: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Append new tokens.

        Args:
            key: float[B, L, G, D].
            value: float[B, L, G, D].

        Returns:
            All keys and values so far, float[B, length, G, D].
        """
        if self._key is None or self._value is None:
            batch, _, groups, size = key.shape
            self._key = paddle.empty([batch, self.capacity, groups, size], dtype=key.dtype)
            self._value = paddle.empty_like(self._key)
            self.prefilled = key.shape[1]
        start, self.length = self.length, self.length + key.shape[1]
        self._key[:, start : self.length] = key
        self._value[:, start : self.length] = value
        return self._key[:, : self.length], self._value[:, : self.length]

    def open(self, length: int) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Count new tokens in; the caller writes them itself.

        Args:
            length: how many.

        Returns:
            Keys and values with room behind what they hold, float[B, capacity, G, D].
        """
        assert self._key is not None and self._value is not None, "nothing has been read yet"
        self.length += length
        return self._key, self._value

    def keep(self, rows: paddle.Tensor) -> None:
        """Go on with these rows, int64[N], in this order; a row may be kept several times."""
        assert self._key is not None and self._value is not None, "nothing has been read yet"
        self._key, self._value = self._key.index_select(rows), self._value.index_select(rows)
