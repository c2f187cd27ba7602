"""Causal attention inside each sample of a pack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import paddle

from paddlemix.handover import Layout, sent
from paddlemix.ops.tensors.mask import HIDDEN, CausalMask

# Segments as long as this share of their group's longest are computed together. Measured on one core, forward and
# backward, 6 heads of 32: 28 samples of 40 to 110 tokens take 21 ms at 0.8, 24 at 0.5 and 47 one by one; 7 samples of
# 48 to 900 tokens 59, 59 and 65 (159 with one mask over the whole pack).
_LIKE_LENGTH = 0.8


# What a token may see: all up to itself but padding, what is before it in its own sample of a pack, what a mask's 0 to
# -1e9 added to its scores leave, or everything.
Visible: TypeAlias = "CausalMask | CausalSegments | paddle.Tensor | None"


@dataclass(frozen=True)
class SegmentGroup:
    """Segments of about the same length, as the rows of a padded batch.

    Attributes:
        places: int64[count * longest], where in the pack each place of the batch comes from; what pads a row is the
            segment's own last token, which no token before it sees.
        count: segments.
        longest: tokens of the longest of them.
        mask: float32[longest, longest], hides from each token those after it, and with them all padding.
    """

    places: paddle.Tensor
    count: int
    longest: int
    mask: paddle.Tensor


class Segments:
    """Which tokens of several sequences laid end to end see one another: those of the same one, each all of them.

    Make one per forward pass, all layers share it.

    Args:
        lengths: tokens per segment, in order.
        cu_seqlens: int32[n + 1], the same as a tensor; None has it made once it is asked for.

    Raises:
        ValueError: a length is negative.
    """

    def __init__(self, lengths: Sequence[int], cu_seqlens: paddle.Tensor | None = None) -> None:
        if min(lengths, default=0) < 0:
            raise ValueError(f"`lengths` are {lengths}; expected numbers of tokens, none below 0.")
        self.lengths = list(lengths)
        self._given_ends = cu_seqlens

    @classmethod
    def laid_out(cls, layout: Layout, name: str) -> Segments:
        """Make those whose `cu_seqlens`, int32[n + 1], a layout has under a name."""
        return cls(np.diff(layout.array(name)).tolist(), layout.tensor(name))

    @classmethod
    def alike(cls, count: int, length: int) -> Segments:
        """Make segments of one length, of which a card computes where they end."""
        return cls([length] * count, paddle.arange(count + 1, dtype="int32") * length)

    @property
    def total(self) -> int:
        """Tokens of all segments."""
        return sum(self.lengths)

    @cached_property
    def cu_seqlens(self) -> paddle.Tensor:
        """int32[n + 1], where each of the n segments begins, and the total."""
        if self._given_ends is not None:
            return self._given_ends
        return sent(np.cumsum([0, *self.lengths], dtype=np.int32))


class CausalSegments:
    """Which tokens of a pack see one another: those of the same sample, each what is not after it.

    Takes the place of a mask in `paddlemix.ops.tensors.attention`; make one per forward pass, all layers share it.

    Args:
        cu_seqlens: int32[n + 1], where each of the n samples begins, and the length of the pack.
        ends: the same, where the host knows them; None asks a card, and waits for it.

    Raises:
        ValueError: `cu_seqlens` does not start at 0, or a sample has no tokens.
    """

    def __init__(self, cu_seqlens: paddle.Tensor, ends: np.ndarray | None = None) -> None:
        self.cu_seqlens = cu_seqlens.astype("int32")
        self.ends: list[int] = (cu_seqlens if ends is None else ends).tolist()
        if len(self.ends) < 2 or self.ends[0] != 0 or any(start >= end for start, end in pairwise(self.ends)):
            raise ValueError(
                f"`cu_seqlens` is {self.ends}; expected 0 and then each sample's end, each beyond the last."
            )

    @property
    def total(self) -> int:
        """Tokens of the pack."""
        return self.ends[-1]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sample."""
        return [end - start for start, end in pairwise(self.ends)]

    @cached_property
    def groups(self) -> list[SegmentGroup]:
        """The segments as few padded batches, so that many short samples take few operations."""
        return [self._group(members) for members in self._members_by_group]

    @cached_property
    def way_back(self) -> paddle.Tensor:
        """int64[total], where in the groups' concatenated batches each token of the pack stands."""
        way_back, offset = np.empty(self.total, dtype=np.int64), 0
        for members in self._members_by_group:
            # A segment's last token occurs again as padding: written backwards, its first occurrence stays.
            places = self._places(members).flatten()
            way_back[places[::-1]] = np.arange(offset + len(places) - 1, offset - 1, -1)
            offset += len(places)
        return sent(way_back)

    @cached_property
    def _members_by_group(self) -> list[list[int]]:
        return list(_alike(self.lengths))

    def _group(self, members: list[int]) -> SegmentGroup:
        places = self._places(members)
        count, longest = places.shape
        mask = paddle.full([longest, longest], HIDDEN).triu(1)
        return SegmentGroup(sent(places.flatten()), count, longest, mask)

    def _places(self, members: list[int]) -> np.ndarray:
        """Find where in the pack each place of a group's padded batch comes from, int64[count, longest]."""
        starts, ends = np.array(self.ends[:-1])[members], np.array(self.ends[1:])[members]
        longest = int((ends - starts).max())
        return np.minimum(starts[:, None] + np.arange(longest), ends[:, None] - 1)


def _alike(lengths: list[int]) -> Iterator[list[int]]:
    """Group segments, longest first, cut where one is much shorter than the first of its group."""
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if group and lengths[index] < _LIKE_LENGTH * lengths[group[0]]:
            yield group
            group = []
        group.append(index)
    yield group
