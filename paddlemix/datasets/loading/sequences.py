"""The records of a set, and the conversations that they become when they are asked for; all of them stay on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import overload

import numpy as np

from paddlemix.cache import digest_of
from paddlemix.conversation import Conversation, RecordError
from paddlemix.datasets.records.indexed_file import Records
from paddlemix.datasets.records.json_files import Located
from paddlemix.datasets.spec import DatasetSpec


class RecordSequence:
    """The records of several files, concatenated.

    Args:
        parts: the files' records.
    """

    def __init__(self, parts: Sequence[Records]) -> None:
        self._parts = tuple(parts)
        self._starts = np.cumsum([0, *map(len, parts)])
        self.identity = digest_of(*(part.identity for part in parts))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def located(self, rows: Iterable[int]) -> Iterator[Located]:
        """Read some of the records; those of one file that are asked for in a row open it once."""
        rows = np.asarray(rows, dtype=np.int64)
        parts = (np.searchsorted(self._starts, rows, side="right") - 1).tolist()
        for part, group in groupby(zip(parts, rows.tolist(), strict=True), key=lambda pair: pair[0]):
            yield from self._parts[part].located([row - int(self._starts[part]) for _, row in group])


class Conversations(Sequence[Conversation]):
    """Records that become conversations when they are asked for.

    Args:
        spec: how they are read.
        records: where they are read from.
        rows: int64[n], which of them.
    """

    def __init__(self, spec: DatasetSpec, records: RecordSequence, rows: np.ndarray) -> None:
        self._spec = spec
        self._records = records
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Conversation: ...

    @overload
    def __getitem__(self, index: slice) -> Conversations: ...

    def __getitem__(self, index: int | slice) -> Conversation | Conversations:
        if isinstance(index, slice):
            return Conversations(self._spec, self._records, self._rows[index])
        (located,) = self._records.located([self._rows[index]])
        return parse_located(self._spec, located)


class Chained(Sequence[Conversation]):
    """Concatenated sequences, none of them copied.

    Args:
        parts: the sequences.
    """

    def __init__(self, parts: Sequence[Sequence[Conversation]]) -> None:
        self._parts = tuple(parts)
        self._starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: int) -> Conversation: ...

    @overload
    def __getitem__(self, index: slice) -> list[Conversation]: ...

    def __getitem__(self, index: int | slice) -> Conversation | list[Conversation]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._parts[part][index - int(self._starts[part])]


def parse_located(spec: DatasetSpec, located: Located) -> Conversation:
    """Make a conversation of a record.

    Args:
        spec: its set.
        located: the record and its place.

    Returns:
        The conversation, its turns weighed as the set says.

    Raises:
        RecordError: the record cannot be used.
    """
    entry, source = located
    if isinstance(entry, RecordError):
        raise entry
    return spec.read(entry, source)
