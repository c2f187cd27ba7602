"""The keys and values of one sequence batch, in memory allocated once."""

from __future__ import annotations

import paddle

from paddlemix.ops import takes_row_table


class RowTable:
    """Which row of a cache's memory holds each token of each row; all layers of a model share one.

    Beams that grow from one another share what they have in common, and none of it is copied.

    Attributes:
        rows: int32[B, capacity]; None where it is the row itself.
    """

    rows: paddle.Tensor | None

    def __init__(self) -> None:
        self.rows = None

    def keep(self, kept: paddle.Tensor, length: int, capacity: int) -> None:
        """Go on with other rows; each writes its next tokens into its own row of the memory.

        Args:
            kept: int64[N].
            length: tokens that the cache holds.
            capacity: tokens it can hold.
        """
        own = paddle.arange(kept.shape[0], dtype="int32").unsqueeze(-1)
        before = kept.astype("int32").unsqueeze(-1) if self.rows is None else self.rows.index_select(kept)
        self.rows = paddle.where(paddle.arange(capacity) < length, before, own)


class KVCache:
    """One layer's cache; it holds `length` tokens, of which the first call of `extend` brought `prefilled`.

    Args:
        capacity: tokens it can hold.
        table: of a model's layers; None for one of its own.
    """

    def __init__(self, capacity: int, table: RowTable | None = None) -> None:
        self.capacity = capacity
        self.length = self.prefilled = 0
        self._table = RowTable() if table is None else table
        self._key: paddle.Tensor | None = None
        self._value: paddle.Tensor | None = None

    @property
    def rows(self) -> paddle.Tensor | None:
        """int32[B, capacity], which row of the memory holds each token of each row; None where it is the row itself."""
        return self._table.rows

    def extend(self, key: paddle.Tensor, value: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Append new tokens.

        Args:
            key: float[B, L, G, D].
            value: float[B, L, G, D].

        Returns:
            All keys and values so far, float[B, length, G, D].
        """
        is_first = self._key is None
        if self._key is None or self._value is None:
            batch, _, groups, size = key.shape
            self._key = paddle.empty([batch, self.capacity, groups, size], dtype=key.dtype)
            self._value = paddle.empty_like(self._key)
            self.prefilled = key.shape[1]
        assert self.rows is None, "what reads rows through a table writes them itself"
        start, self.length = self.length, self.length + key.shape[1]
        self._key[:, start : self.length] = key
        self._value[:, start : self.length] = value
        # Kernels that want rows without room behind them are spared a copy.
        return (key, value) if is_first else (self._key[:, : self.length], self._value[:, : self.length])

    def open(self, length: int) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Count new tokens in; the caller writes them itself.

        Args:
            length: how many.

        Returns:
            Keys and values with room behind what they hold, float[B or more, capacity, G, D].
        """
        assert self._key is not None and self._value is not None, "nothing has been read yet"
        self.length += length
        return self._key, self._value

    def reads_through_table(self) -> bool:
        """Tell whether what reads the cache can do it through a table of rows."""
        return self._key is not None and takes_row_table(self._key)

    def keep(self, rows: paddle.Tensor) -> None:
        """Go on with these rows, int64[N], in this order; a row may be kept several times."""
        assert self._key is not None and self._value is not None, "nothing has been read yet"
        self._key, self._value = self._key.index_select(rows), self._value.index_select(rows)

    def reserve(self, rows: int) -> None:
        """Make room for so many rows; what the first of them hold stays."""
        assert self._key is not None and self._value is not None, "nothing has been read yet"
        missing = rows - self._key.shape[0]
        if missing > 0:
            room = paddle.empty([missing, *self._key.shape[1:]], dtype=self._key.dtype)
            self._key, self._value = (paddle.concat([cache, room]) for cache in (self._key, self._value))


class KVCaches(list[KVCache]):
    """A model's caches, which share a table of rows.

    Args:
        layers: of the model.
        capacity: tokens that each can hold.
    """

    def __init__(self, layers: int, capacity: int) -> None:
        self._table = RowTable()
        super().__init__(KVCache(capacity, self._table) for _ in range(layers))

    def keep(self, rows: paddle.Tensor) -> None:
        """Go on with these rows, int64[N], in this order; a row may be kept several times."""
        if not self[0].reads_through_table():
            for cache in self:
                cache.keep(rows)
            return
        for cache in self:
            cache.reserve(rows.shape[0])
        self._table.keep(rows, self[0].length, self[0].capacity)
