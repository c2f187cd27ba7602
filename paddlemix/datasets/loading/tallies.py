"""Sentences that hold of many records, told once each with how many."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tally:
    """Which texts hold of which records, eight bytes a time.

    Attributes:
        texts: no two alike.
        holds: int32[n, 2], the place of a record and the number of a text that holds of it.
    """

    texts: tuple[str, ...]
    holds: np.ndarray

    @classmethod
    def of(cls, told: Iterable[tuple[int, Iterable[str]]]) -> Tally:
        """Make the tally of records, given by their places and the texts that hold of each."""
        numbers: dict[str, int] = {}
        holds = [(place, numbers.setdefault(text, len(numbers))) for place, texts in told for text in texts]
        return cls(tuple(numbers), np.array(holds, dtype=np.int32).reshape(-1, 2))

    @classmethod
    def joined(cls, parts: Sequence[tuple[Tally, np.ndarray]]) -> Tally:
        """Join tallies.

        Args:
            parts: each with int[records], the place that each of its records has in the whole.

        Returns:
            The tally of all of them.
        """
        numbers: dict[str, int] = {}
        holds = [np.empty((0, 2), np.int32)]
        for tally, places in parts:
            renumbered = np.array([numbers.setdefault(text, len(numbers)) for text in tally.texts], dtype=np.int32)
            moved = places[tally.holds[:, 0]], renumbered[tally.holds[:, 1]]
            holds.append(np.stack(moved, axis=1).astype(np.int32))
        return cls(tuple(numbers), np.concatenate(holds))

    def fits(self, count: int) -> bool:
        """Tell whether it can be the tally of so many records."""
        holds = self.holds
        if holds.dtype != np.int32 or holds.ndim != 2 or holds.shape[1] != 2:
            return False
        is_there = (holds >= 0) & (holds < [count, len(self.texts)])
        return bool(is_there.all()) and all(isinstance(text, str) for text in self.texts)

    def without(self, places: np.ndarray) -> Tally:
        """Forget the records at int[n] places."""
        return Tally(self.texts, self.holds[~np.isin(self.holds[:, 0], places)])

    def counts(self) -> list[tuple[str, int, int]]:
        """Count each text that holds of any record: the text, of how many, and the place of the first."""
        found = []
        for number, text in enumerate(self.texts):
            places = self.holds[self.holds[:, 1] == number, 0]
            if len(places):
                found.append((text, len(places), int(places.min())))
        return found

    def of_first(self, most: int) -> dict[int, tuple[str, ...]]:
        """Return the texts that hold of the first records, `most` at most, by their places."""
        first = np.unique(self.holds[:, 0])[:most].tolist()
        return {
            place: tuple(self.texts[number] for number in self.holds[self.holds[:, 0] == place, 1]) for place in first
        }

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Return what `of_arrays` takes, under names that begin with `name`."""
        texts = np.frombuffer(json.dumps(self.texts).encode(), dtype=np.uint8)
        return {f"{name}_texts": texts, f"{name}_holds": self.holds}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray], name: str) -> Tally:
        """Make the tally again of what `arrays` gave."""
        return cls(tuple(json.loads(arrays[f"{name}_texts"].tobytes())), arrays[f"{name}_holds"])
