"""MIXToken: which samples share a pack, planned on their lengths alone.

Source: best-fit decreasing, Johnson, "Near-optimal bin packing algorithms", 1973, inside windows of a shuffled order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DEFAULT_WINDOW = 4096

# Indices of the samples that share a pack.
Pack = list[int]


@dataclass(frozen=True)
class PackPlanner:
    """Plans an epoch's packs window by window, so that the order stays random and the packs are full nevertheless.

    Attributes:
        capacity: tokens one pack holds.
        window: samples of the shuffled order that are packed together; more make fuller packs and a plan that takes
            longer, fewer stay closer to the order.
    """

    capacity: int
    window: int = DEFAULT_WINDOW

    def plan(self, order: np.ndarray, lengths: np.ndarray, generator: np.random.Generator) -> list[Pack]:
        """Pack the samples of one epoch.

        Args:
            order: int64[n], which samples, in the order to keep roughly.
            lengths: int64[samples], tokens of every sample that `order` may name.
            generator: of the packs' order inside a window.

        Returns:
            The packs; every entry of `order` occurs exactly once.

        Raises:
            ValueError: one sample alone is longer than `capacity`.
        """
        packs: list[Pack] = []
        unfinished: Pack = []
        for start in range(0, len(order), self.window):
            parts = [[index] for index in order[start : start + self.window].tolist()]
            if unfinished:
                # As if it were one sample: its samples stay together, and it is filled up early.
                parts.append(unfinished)
            planned = self._join(parts, lengths)
            # A window's emptiest pack is filled up with the next window.
            unfinished = planned.pop() if start + self.window < len(order) else []
            packs += [planned[place] for place in generator.permutation(len(planned)).tolist()]
        return packs

    def plan_in_order(self, order: np.ndarray, lengths: np.ndarray) -> list[Pack]:
        """Pack the samples of one epoch without changing their order; packs are less full for it.

        Args:
            order: int64[n], which samples.
            lengths: int64[samples], tokens of every sample that `order` may name.

        Returns:
            The packs, one behind the other they are `order`.

        Raises:
            ValueError: one sample alone is longer than `capacity`.

        Source: next-fit, Johnson, "Near-optimal bin packing algorithms", 1973.
        """
        _check_lengths(lengths[order], self.capacity)
        packs: list[Pack] = []
        room = 0
        for index, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
            if length > room:
                packs.append([])
                room = self.capacity
            packs[-1].append(index)
            room -= length
        return packs

    def _join(self, parts: list[Pack], lengths: np.ndarray) -> list[Pack]:
        """Plan packs of whole parts, the emptiest last."""
        members = [index for part in parts for index in part]
        ends = np.cumsum([len(part) for part in parts])
        sums = np.add.reduceat(lengths[members], [0, *ends[:-1]])
        planned = plan_packs(sums.tolist(), capacity=self.capacity)
        return [[index for place in pack for index in parts[place]] for pack in planned]


def plan_packs(lengths: Sequence[int], *, capacity: int) -> list[Pack]:
    """Group samples into packs, longest first, each into the fullest pack with room.

    Args:
        lengths: tokens per sample, vision placeholders included.
        capacity: tokens one pack holds.

    Returns:
        Sample indices per pack, the emptiest pack last; every index occurs exactly once.

    Raises:
        ValueError: one sample alone is longer than `capacity`, or shorter than one token.
    """
    _check_lengths(lengths, capacity)
    packs: list[Pack] = []
    rooms = _OpenPacks(capacity)
    for index in np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").tolist():
        length = lengths[index]
        pack, room = rooms.take_fullest(length) or (len(packs), capacity)
        if pack == len(packs):
            packs.append([])
        packs[pack].append(index)
        rooms.put(pack, room - length)
    emptiest = rooms.emptiest()
    if emptiest is not None:
        packs.append(packs.pop(emptiest))
    return packs


def _check_lengths(lengths: Sequence[int] | np.ndarray, capacity: int) -> None:
    if not len(lengths):
        return
    shortest, longest = np.min(lengths), np.max(lengths)
    if shortest < 1 or longest > capacity:
        raise ValueError(f"lengths from {shortest} to {longest}; expected 1 to {capacity}, the tokens one pack holds.")


class _OpenPacks:
    """Packs by the room they have left; lengths are bounded, so one bit per size finds the tightest fit at once."""

    def __init__(self, capacity: int) -> None:
        self._by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
        self._occupied = 0  # bit r is set where a pack has room for exactly r tokens

    def take_fullest(self, length: int) -> tuple[int, int] | None:
        """Take the fullest pack that has room for `length`, and its room; None where there is none."""
        fitting = self._occupied >> length
        if not fitting:
            return None
        room = length + (fitting & -fitting).bit_length() - 1
        pack = self._by_room[room].pop()
        if not self._by_room[room]:
            self._occupied ^= 1 << room
        return pack, room

    def put(self, pack: int, room: int) -> None:
        """Give a pack back with what room it has left; a full one is done with."""
        if room:
            self._by_room[room].append(pack)
            self._occupied |= 1 << room

    def emptiest(self) -> int | None:
        """Find a pack with the most room; None where all are full."""
        return self._by_room[self._occupied.bit_length() - 1][-1] if self._occupied else None


def mean_fill(packs: Sequence[Pack], lengths: np.ndarray, capacity: int) -> float:
    """Compute the share of all packs' capacity that samples take.

    Args:
        packs: at least one.
        lengths: int64[samples].
        capacity: tokens one pack holds.

    Returns:
        Between 0 and 1.
    """
    return sum(int(lengths[pack].sum()) for pack in packs) / (len(packs) * capacity)
