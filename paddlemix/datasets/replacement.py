"""Which record is trained in the place of one that cannot be used: the same in all ranks and after every resume."""

from __future__ import annotations

import numpy as np

from paddlemix.datasets.loading.sizes import SizeTable

# How many records are tried in the place of a bad one. Where half of a set is bad, that none of so many can be used has
# a probability of 1e-10.
TRIES = 32
# Keeps what is random here apart from orders of the same seed.
_OWN = 2


class Replacements:
    """Records of the same set, the best first; the bad record's index and the table of sizes alone decide.

    Args:
        sizes: of all records.
        offsets: int64[sets + 1], the index of each set's first record.
    """

    def __init__(self, sizes: SizeTable, offsets: np.ndarray) -> None:
        self._tokens = sizes.column("tokens")
        self._targets = sizes.column("target_tokens")
        self._offsets = np.asarray(offsets)

    @property
    def most_tokens(self) -> int:
        """Tokens of the longest record."""
        return int(self._tokens.max())

    def candidates(self, index: int, most_tokens: int) -> list[int]:
        """List the records to try in a bad one's place.

        Those that have no more tokens come first, the nearer their number of target tokens the sooner, and of equals
        any; so a stretch of bad records, as a broken download leaves, is not replaced by its own neighbours. Where they
        are used up, longer ones follow, the shortest first.

        Args:
            index: of the bad record.
            most_tokens: that one of the others may have.

        Returns:
            `TRIES` indices at most. Where the bad record has targets, all of them have.
        """
        place = int(np.searchsorted(self._offsets, index, side="right")) - 1
        first, last = int(self._offsets[place]), int(self._offsets[place + 1])
        tokens, targets = self._tokens[first:last], self._targets[first:last]
        own_tokens, own_targets = tokens[index - first], targets[index - first]
        chance = np.random.default_rng([index, _OWN]).random(last - first)
        is_shorter = tokens <= own_tokens
        # Whole numbers decide, and chance among those of one number.
        rank = np.where(is_shorter, abs(targets - own_targets), self._targets.max() + tokens) + chance
        is_allowed = (is_shorter | (tokens <= most_tokens)) & (targets >= min(own_targets, 1))
        is_allowed[index - first] = False
        allowed = np.flatnonzero(is_allowed)
        best = allowed[np.argpartition(rank[allowed], TRIES)[:TRIES]] if len(allowed) > TRIES else allowed
        return (first + best[np.argsort(rank[best], kind="stable")]).tolist()
