"""Checking and measuring records before training, many at a time and on all cores."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
from tqdm import tqdm

from paddlemix._environment import usable_cores
from paddlemix.contract import ConversationProcessor, SampleSize
from paddlemix.conversation import Conversation, RecordError, result_or_error
from paddlemix.datasets.loading.forking import ready_to_fork
from paddlemix.datasets.loading.sizes import SizeTable
from paddlemix.datasets.records.json_files import Located

# Records measured together: enough that what they share is computed once, few enough that the bar moves.
CHUNK = 1024
# Below this many chunks for each, further processes take longer to start than they save.
_CHUNKS_WORTH_A_PROCESS = 4

Measured = tuple[np.ndarray, list[tuple[int, RecordError]]]
Function = Callable[[np.ndarray], Measured]
Parse = Callable[[Located], Conversation]


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
            int32[n, columns], `UNUSABLE` where a record is bad; and of each bad one its place in `rows`, and why.
        """
        chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
        with _mapping(self._measure_chunk, len(chunks)) as each, self._bar(len(rows)) as bar:
            tables, errors = [SizeTable.of([]).table], []
            for number, (table, found) in enumerate(each(chunks)):
                tables.append(table)
                errors += [(number * CHUNK + place, error) for place, error in found]
                bar.update(len(table))
        return np.concatenate(tables), errors

    def _measure_chunk(self, rows: np.ndarray) -> Measured:
        parsed = [result_or_error(self.parse, located) for located in self.located(rows)]
        usable = [one for one in parsed if isinstance(one, Conversation)]
        sizes = iter(measure_many(self.processor, usable))
        results = [next(sizes) if isinstance(one, Conversation) else one for one in parsed]
        table = SizeTable.of(None if isinstance(result, RecordError) else result for result in results).table
        return table, [(place, result) for place, result in enumerate(results) if isinstance(result, RecordError)]

    def _bar(self, total: int) -> tqdm:
        # None switches the bar off where there is no terminal.
        return tqdm(total=total, desc=self.title, unit=" records", disable=None)


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


@contextmanager
def _mapping(function: Function, count: int) -> Iterator[Callable[[Iterable[np.ndarray]], Iterator[Measured]]]:
    """Lend a `map` that keeps the order, over processes where the work is worth it."""
    processes = min(usable_cores(), count // _CHUNKS_WORTH_A_PROCESS)
    # Only a forked process inherits the function, whatever it holds, and needs no main module to import.
    if processes < 2 or "fork" not in multiprocessing.get_all_start_methods():
        yield partial(map, function)
        return
    context = multiprocessing.get_context("fork")
    with ready_to_fork(), ProcessPoolExecutor(processes, context, partial(_take_over, function)) as pool:
        try:
            yield partial(pool.map, _call)
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a process that measured records was killed, as the system does where memory runs out"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_function: Function


def _take_over(function: Function) -> None:
    """Keep what the parent hands over, which need not be pickled for it."""
    global _function
    _function = function


def _call(rows: np.ndarray) -> Measured:
    return _function(rows)
