"""Which keys a padded batch's causal attention hides, described without a matrix of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import paddle

from paddlemix.handover import sent

# Not -inf: a row that sees nothing (a padded query) would turn into NaN. Far below any score, far above float32's end.
HIDDEN = -1e9


@dataclass(frozen=True)
class Padding:
    """Where the rows of a batch have tokens, each in one piece; known to the host.

    Attributes:
        starts: by row, how many places stand before its tokens.
        ends: by row, the place behind its tokens.
        span: places of every row.
    """

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    span: int

    @classmethod
    def of(cls, attention_mask: np.ndarray) -> Padding | None:
        """Read int64 or bool[B, S], 0 where a place is padding; None where padding stands among a row's tokens."""
        is_token = attention_mask != 0
        rows, span = is_token.shape
        if not span:
            return cls((0,) * rows, (0,) * rows, 0)
        counts, starts = is_token.sum(axis=1), is_token.argmax(axis=1)
        ends = np.where(counts, span - is_token[:, ::-1].argmax(axis=1), 0)
        if (ends - starts != counts).any():
            return None
        return cls(tuple(starts.tolist()), tuple(ends.tolist()), span)

    @property
    def is_behind(self) -> bool:
        """Whether padding stands behind tokens alone, which causality hides from them."""
        return not any(self.starts)

    @property
    def is_before(self) -> bool:
        """Whether padding stands before tokens alone: every row ends with one."""
        return all(end == self.span for end in self.ends)

    @cached_property
    def lengths(self) -> list[int]:
        """Of the rows laid end to end, the lengths of the stretches of tokens and of padding; none is 0."""
        rows = zip(self.starts, self.ends, strict=True)
        lengths = (length for start, end in rows for length in (start, end - start, self.span - end))
        return [length for length in lengths if length]

    @cached_property
    def cu_seqlens(self) -> paddle.Tensor:
        """int32[n + 1], where each of these n stretches begins, and the end of the last."""
        return sent(np.array([0, *accumulate(self.lengths)], np.int32))


class CausalMask:
    """Queries that are the last of their keys, and see none after themselves; nor do they see padding.

    Takes the place of a mask in `paddlemix.ops.tensors.attention`; make one per forward pass, all layers share it.

    Args:
        attention_mask: int64 or bool[B, S], 0 where a key is padding, or None where there is none. An array is known to
            the host; a tensor on a card is copied from it, and waited for, where the kernels have to be told where
            padding stands.
    """

    def __init__(self, attention_mask: paddle.Tensor | np.ndarray | None = None) -> None:
        self.attention_mask = attention_mask
        self._dense: dict[tuple[int, int], paddle.Tensor | None] = {}

    @property
    def shape(self) -> list[int] | None:
        """Rows and keys of the batch; None where nothing is padded."""
        return None if self.attention_mask is None else list(self.attention_mask.shape)

    @cached_property
    def padding(self) -> Padding | None:
        """Where tokens stand; None where nothing is padded, or padding stands among a row's tokens."""
        return None if self.attention_mask is None else Padding.of(np.asarray(self.attention_mask))

    @cached_property
    def visible(self) -> paddle.Tensor:
        """uint8[B, S], 0 where a key is padding; without numbers where none is."""
        if self.attention_mask is None:
            return paddle.empty([0], dtype="uint8")
        if isinstance(self.attention_mask, np.ndarray):
            return sent((self.attention_mask != 0).astype(np.uint8))
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
            visible = paddle.logical_and(visible, self.visible.astype("bool").unsqueeze([1, 2]))
        return (1.0 - visible.astype("float32")) * HIDDEN
