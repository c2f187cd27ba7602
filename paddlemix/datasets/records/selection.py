"""Which of a set's records are used: `splits`, `max_samples` and `seed`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

_SLICE = re.compile(r"\s*(?:(\d+(?:\.\d+)?)(%?))?\s*:\s*(?:(\d+(?:\.\d+)?)(%?))?\s*", re.ASCII)


def select(
    count: int, *, splits: Sequence[str] = (), max_samples: int | None = None, seed: int | None = None
) -> np.ndarray:
    """Choose records.

    Args:
        count: records of the set.
        splits: stretches such as ":90%", "90%:" or "1000:2000", together what is used; empty for all.
        max_samples: use so many at most.
        seed: shuffles the records before they are chosen, so that they are no stretch of the file; sets with one seed
            are shuffled alike, so ":90%" and "90%:" have no record in common. None keeps their order.

    Returns:
        int64[n], the numbers of the records, ascending.

    Raises:
        ValueError: a split is malformed, or splits overlap.
    """
    order = np.arange(count) if seed is None else np.random.default_rng(seed).permutation(count)
    chosen = [order[slice(*split_bounds(split, count))] for split in splits] or [order]
    rows = np.concatenate(chosen)
    if len(np.unique(rows)) < len(rows):
        raise ValueError(f"`splits` is {list(splits)}, whose stretches overlap; expected no record in two of them")
    return np.sort(rows[:max_samples])


def split_bounds(split: str, count: int) -> tuple[int, int]:
    """Find where a stretch begins and ends.

    Args:
        split: such as ":90%".
        count: records of the set.

    Returns:
        The first record, and the one after the last.

    Raises:
        ValueError: it is malformed, or ends before it begins.
    """
    found = _SLICE.fullmatch(split)
    if found is None:
        raise ValueError(f'`splits` holds {split!r}; expected a stretch such as ":90%", "90%:" or "1000:2000"')
    first, last = _bound(found[1], found[2], count, 0), _bound(found[3], found[4], count, count)
    if found[1] and found[3] and found[2] == found[4] and float(found[1]) >= float(found[3]):
        raise ValueError(f"`splits` holds {split!r}, which ends before it begins; expected the smaller number first")
    return first, max(first, last)


def _bound(number: str | None, percent: str | None, count: int, otherwise: int) -> int:
    if number is None:
        return otherwise
    return min(round(float(number) / 100 * count) if percent else int(float(number)), count)
