"""Which keys a padded batch's causal attention hides, described without a matrix of them."""

from __future__ import annotations

from functools import cached_property

import paddle

# Not -inf: a row that sees nothing (a padded query) would turn into NaN. Far below any score, far above float32's end.
HIDDEN = -1e9


class CausalMask:
    """Queries that are the last of their keys, and see none after themselves; nor do they see padding.

    Takes the place of a mask in `paddlemix.ops.tensors.attention`; make one per forward pass, all layers share it.

    Args:
        attention_mask: int64 or bool[B, S], 0 where a key is padding, or None where there is none.
    """

    def __init__(self, attention_mask: paddle.Tensor | None = None) -> None:
        self.attention_mask = attention_mask
        self._dense: dict[tuple[int, int], paddle.Tensor | None] = {}

    @cached_property
    def visible(self) -> paddle.Tensor:
        """uint8[B, S], 0 where a key is padding; without numbers where none is."""
        if self.attention_mask is None:
            return paddle.empty([0], dtype="uint8")
        return (self.attention_mask != 0).astype("uint8")

    def dense(self, length: int, span: int) -> paddle.Tensor | None:
        """Return what is added to scores.

        Args:
            length: queries.
            span: keys.

        Returns:
            float32 of 0 (seen) and -1e9 (hidden): [length, span], or [B, 1, length, span] where there is padding; None
            when every query sees every key.
        """
        if (length, span) not in self._dense:
            self._dense[length, span] = self._make_dense(length, span)
        return self._dense[length, span]

    def _make_dense(self, length: int, span: int) -> paddle.Tensor | None:
        if length == 1 and self.attention_mask is None:
            return None
        visible = paddle.ones([length, span], dtype="bool").tril(span - length)
        if self.attention_mask is not None:
            visible = paddle.logical_and(visible, self.attention_mask.astype("bool").unsqueeze([1, 2]))
        return (1.0 - visible.astype("float32")) * HIDDEN
