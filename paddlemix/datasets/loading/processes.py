"""Work on many records, shared out among all cores where there is enough of it."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from paddlemix._environment import usable_cores
from paddlemix.datasets.loading.forking import ready_to_fork

Result = TypeVar("Result")
# Below this many pieces of work for each, further processes take longer to start than they save.
_PIECES_WORTH_A_PROCESS = 4


@contextmanager
def mapping(function: Callable[[Any], Result], count: int) -> Iterator[Callable[[Iterable[Any]], Iterator[Result]]]:
    """Lend a `map` of a function that keeps the order, over processes where the work is worth it.

    Args:
        function: done to each piece of work; need not be pickled, while pieces and results must.
        count: of the pieces.

    Yields:
        `map` with the function.

    Raises:
        RuntimeError: a process was killed.
    """
    processes = min(usable_cores(), count // _PIECES_WORTH_A_PROCESS)
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
                "a process that checked records was killed, as the system does where memory runs out"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_function: Callable[[Any], Any]


def _take_over(function: Callable[[Any], Any]) -> None:
    """Keep what the parent hands over, and leave Ctrl-C, which reaches all processes of a terminal, to it."""
    global _function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _function = function


def _call(piece: Any) -> Any:
    return _function(piece)
