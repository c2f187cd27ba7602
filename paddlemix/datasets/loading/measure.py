"""Checking and measuring records before training, many at a time and on all cores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from tqdm import tqdm

from paddlemix.contract import ConversationProcessor, SampleSize
from paddlemix.conversation import Conversation, RecordError, UnknownKeysError, result_or_error
from paddlemix.datasets.loading.media_table import MediaTable
from paddlemix.datasets.loading.processes import mapping
from paddlemix.datasets.loading.sizes import COLUMNS, UNUSABLE, SizeTable
from paddlemix.datasets.loading.tallies import Tally
from paddlemix.datasets.records.json_files import Located

# Records measured together: enough that what they share is computed once, few enough that the bar moves.
CHUNK = 1024
# Bad records from which on a set is given up, where they are so large a share of those that were looked at.
_MANY_BAD, _NEARLY_ALL = 100_000, 0.9

Parse = Callable[[Located], Conversation]


@dataclass(frozen=True)
class Measured:
    """What was found out about some records, by their places among them.

    Attributes:
        table: int32[n, columns], `UNUSABLE` where a record is bad.
        errors: the place of each bad one, ascending, and why it is; none for those of `unknown_keys`.
        media: what they show.
        notes: what a user should know of those that are usable.
        unknown_keys: the keys of bad ones that nothing reads.
    """

    table: np.ndarray
    errors: list[tuple[int, RecordError]]
    media: MediaTable
    notes: Tally
    unknown_keys: Tally

    @classmethod
    def joined(cls, parts: Sequence[tuple[Measured, np.ndarray]], count: int) -> Measured:
        """Join what was found out about several lots.

        Args:
            parts: each with int[records], the place that each of its records has in the whole; of a place that comes
                twice the last size counts.
            count: records of the whole.

        Returns:
            The whole.
        """
        table = np.empty((count, SizeTable.of([]).table.shape[1]), dtype=np.int32)
        for part, places in parts:
            table[places] = part.table
        errors = [(int(places[place]), error) for part, places in parts for place, error in part.errors]
        return cls(
            table,
            sorted(errors, key=lambda found: found[0]),
            MediaTable.joined([(part.media, places) for part, places in parts]),
            Tally.joined([(part.notes, places) for part, places in parts]),
            Tally.joined([(part.unknown_keys, places) for part, places in parts]),
        )

    def fits(self, count: int) -> bool:
        """Tell whether it can be what was found out about so many records, and not what became of its file."""
        places = [place for place, _ in self.errors]
        return (
            self.table.dtype == np.int32
            and self.table.shape == (count, len(COLUMNS))
            and bool((self.table >= UNUSABLE).all())
            and all(first < last for first, last in pairwise([-1, *places, count]))
            and self.media.fits(count)
            and self.notes.fits(count)
            and self.unknown_keys.fits(count)
        )

    def renewed(self, again: Measured, places: np.ndarray) -> Measured:
        """Put in what was found out anew about some of the records.

        Args:
            again: about these.
            places: int64[n], ascending, which they are.

        Returns:
            What holds now.
        """
        forgotten = set(places.tolist())
        others = replace(
            self,
            errors=[(place, error) for place, error in self.errors if place not in forgotten],
            media=self.media.without(places),
            notes=self.notes.without(places),
            unknown_keys=self.unknown_keys.without(places),
        )
        return Measured.joined([(others, np.arange(len(self.table))), (again, places)], len(self.table))

    def says_the_same(self, other: Measured) -> bool:
        """Tell whether the same records are found as good or as bad as in another one of these."""
        found, others = ([(place, str(error)) for place, error in one.errors] for one in (self, other))
        return found == others and np.array_equal(self.table, other.table)


@dataclass(frozen=True)
class Measuring:
    """How the records of one set are checked and measured.

    Attributes:
        located: `located(rows)` reads records.
        parse: makes conversations of them.
        processor: measures these.
        title: of the progress bar.
    """

    located: Callable[[Iterable[int]], Iterator[Located]]
    parse: Parse
    processor: ConversationProcessor
    title: str

    def measure(self, rows: np.ndarray) -> Measured:
        """Measure records.

        Args:
            rows: int64[n], which of them.

        Returns:
            What was found out, by their places in `rows`.

        Raises:
            ValueError: of very many records nearly all are bad: the file holds something else than such records, and
                what is wrong with each of millions has no room in memory.
        """
        chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
        parts = [self._measure_chunk(rows[:0])]
        bad = measured = 0
        # None switches the bar off where there is no terminal.
        bar = tqdm(total=len(rows), desc=self.title, unit=" records", disable=None)
        with mapping(self._measure_chunk, len(chunks)) as each, bar:
            for part in each(chunks):
                parts.append(part)
                bar.update(len(part.table))
                bad += len(part.errors)
                measured += len(part.table)
                if bad > _MANY_BAD and bad > _NEARLY_ALL * measured:
                    first = next(error for one in parts for _, error in one.errors)
                    raise ValueError(
                        f"{bad:,} of the first {measured:,} records cannot be used, and the others were not looked at. "
                        f"The first of them: {first}"
                    )
        places = [rows[:0], *(np.arange(start, start + CHUNK) for start in range(0, len(rows), CHUNK))]
        return Measured.joined(
            [(part, own[: len(part.table)]) for part, own in zip(parts, places, strict=True)], len(rows)
        )

    def _measure_chunk(self, rows: np.ndarray) -> Measured:
        parsed = [result_or_error(self.parse, located) for located in self.located(rows)]
        usable = [(place, one) for place, one in enumerate(parsed) if isinstance(one, Conversation)]
        # Before a header is read: what changes after it is seen at the next start.
        media = MediaTable.of(usable)
        sizes = iter(measure_many(self.processor, [one for _, one in usable]))
        results = [next(sizes) if isinstance(one, Conversation) else one for one in parsed]
        errors = [(place, result) for place, result in enumerate(results) if isinstance(result, RecordError)]
        return Measured(
            SizeTable.of(None if isinstance(result, RecordError) else result for result in results).table,
            [(place, error) for place, error in errors if not isinstance(error, UnknownKeysError)],
            media,
            Tally.of((place, one.notes) for place, one in usable if not isinstance(results[place], RecordError)),
            Tally.of((place, error.keys) for place, error in errors if isinstance(error, UnknownKeysError)),
        )


def measure_many(processor: ConversationProcessor, conversations: list[Conversation]) -> list[SampleSize | RecordError]:
    """Measure conversations, together where the processor can.

    Args:
        processor: has `measure`, and `measure_many` where that is faster.
        conversations: to measure.

    Returns:
        The size of each, or why it is bad.
    """
    together = getattr(processor, "measure_many", None)
    if together is not None:
        return together(conversations)
    return [result_or_error(processor.measure, conversation) for conversation in conversations]
