"""Asking the built library how fast each way to compute a product is here."""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass
from enum import IntEnum

from paddlemix.ops.probing.choice import FEW_ROWS, MORE_ROWS, WORTHWHILE, Choice, Rates, prefers_mkl

# The product of a layer: rows for each thread, and both sides of its weight.
_ROWS, _SIDE = 256, 512
# The best of so many products counts, in two rounds, or of as many as are done in so many seconds a round.
_RUNS, _ROUNDS, _SECONDS = 3, 2, 0.004
# How many times as long as it computes a lone thread may take before other programs are in its way.
_BUSY = 1.1


class Path(IntEnum):
    """What computes a product, as `external_ops/cpu/product_times.cc` numbers it."""

    ONEDNN = 0
    MKL = 1
    REGISTERS = 2
    BFLOAT16 = 3
    WIDENED = 4


@dataclass(frozen=True)
class Times:
    """Of the same product, computed again and again.

    Attributes:
        wall: seconds of each by the wall clock; none where there is no such way.
        own: seconds for which the calling thread computed.
    """

    wall: list[float]
    own: list[float]


def measure(handle: ctypes.CDLL, threads: int, *, takes_fewer: bool) -> Rates:
    """Measure the rates of this machine, in some 30 ms of work.

    Ways are compared on one thread, in turn, by that thread's own time, which other programs take nothing of: a machine
    is first used at any hour. How many threads pay shows on the wall clock alone, so it is not measured where other
    programs are in the way.

    Args:
        handle: the library of the ops on tensors, whose threads and ways to compute are not what they were afterwards.
        threads: how many may compute.
        takes_fewer: whether fewer may as well.

    Returns:
        The rates.
    """
    start = time.process_time()
    handle.paddlemix_set_num_threads(1)
    heights = (FEW_ROWS, *MORE_ROWS)
    found = _Found(handle)
    found.compare(_ROWS, Path.ONEDNN, Path.MKL, Path.BFLOAT16)
    onednn, mkl = found.rate(Path.ONEDNN), found.rate(Path.MKL)
    library = Path.MKL if prefers_mkl(onednn, mkl) else Path.ONEDNN
    handle.paddlemix_choose_products(int(library is Path.MKL), 0, FEW_ROWS)  # by which `WIDENED` multiplies
    found.compare(_ROWS, Path.WIDENED)
    for height in heights:
        found.compare(height, Path.REGISTERS, library)
    measures_threads = takes_fewer and threads > 1 and not found.is_busy
    return Rates(
        onednn,
        mkl,
        found.rate(Path.BFLOAT16),
        found.rate(Path.WIDENED),
        _rates_when_quiet(handle, threads) if measures_threads else {},
        {height: found.rate(Path.REGISTERS, height) for height in heights},
        {height: found.rate(library, height) for height in heights},
        time.process_time() - start,
    )


class _Found:
    """The times of one thread, by path and rows.

    Args:
        handle: the library.
    """

    def __init__(self, handle: ctypes.CDLL) -> None:
        self._handle = handle
        self._times: dict[tuple[Path, int], Times] = {}

    def compare(self, rows: int, *paths: Path) -> None:
        """Compute in several ways, in turn."""
        for _ in range(_ROUNDS):
            for path in paths:
                times = time_product(self._handle, path, rows, _SIDE, _SIDE, rounds=path >= Path.BFLOAT16)
                before = self._times.get((path, rows), Times([], []))
                self._times[path, rows] = Times(before.wall + times.wall, before.own + times.own)

    def rate(self, path: Path, rows: int = _ROWS) -> float:
        """Return GFLOP/s; 0 where there is no such way."""
        return _gflops(rows, self._times[path, rows].own)

    @property
    def is_busy(self) -> bool:
        """Tell whether other programs took the core from the thread."""
        wall, own = (sum(sum(getattr(one, name)) for one in self._times.values()) for name in ("wall", "own"))
        return wall > _BUSY * own


def _rates_when_quiet(handle: ctypes.CDLL, threads: int) -> dict[int, float]:
    """Measure numbers of threads; none where another program has come in the way meanwhile."""
    rates = _rates_of_threads(handle, threads)
    handle.paddlemix_set_num_threads(1)
    afterwards = _Found(handle)
    afterwards.compare(_ROWS, Path.ONEDNN)
    return {} if afterwards.is_busy else rates


def _rates_of_threads(handle: ctypes.CDLL, threads: int) -> dict[int, float]:
    """Halve the number as long as that is faster; each thread of the most has as many rows as a layer's."""
    rates: dict[int, float] = {}
    number, before = threads, 0.0
    while number:
        handle.paddlemix_set_num_threads(number)
        times = time_product(handle, Path.ONEDNN, _ROWS * threads, _SIDE, _SIDE, runs=_ROUNDS * _RUNS)
        rates[number] = _gflops(_ROWS * threads, times.wall)
        if rates[number] < WORTHWHILE * before:
            break
        number, before = number // 2, rates[number]
    return rates


def _gflops(rows: int, seconds: list[float]) -> float:
    return 2e-9 * rows * _SIDE * _SIDE / max(min(seconds), 1e-9) if seconds else 0.0


def time_product(
    handle: ctypes.CDLL,
    path: Path,
    m: int,
    k: int,
    n: int,
    *,
    transposed: tuple[bool, bool] = (False, False),
    rounds: bool = False,
    runs: int = _RUNS,
    most: float = _SECONDS,
) -> Times:
    """Measure products of factors [m, k] and [k, n], the first of which prepares, and so takes longer.

    Args:
        handle: the library.
        path: what computes.
        m: rows of the left factor.
        k: its columns.
        n: columns of the right factor.
        transposed: whether each factor is held the other way round.
        rounds: whether rounding the factors counts.
        runs: how many, at most.
        most: seconds behind which no other begins.

    Returns:
        Their times.
    """
    wall, own = (ctypes.c_double * runs)(), (ctypes.c_double * runs)()
    done = handle.paddlemix_time_product(
        int(path), m, k, n, int(transposed[0]), int(transposed[1]), int(rounds), runs, most, wall, own
    )
    return Times(list(wall[:done]), list(own[:done]))


def declare(handle: ctypes.CDLL) -> None:
    """Tell ctypes what the library's functions take.

    Args:
        handle: the library.
    """
    small, whole, real = ctypes.c_int, ctypes.c_int64, ctypes.c_double
    reals = ctypes.POINTER(real)
    handle.paddlemix_choose_products.argtypes = [small, small, whole]
    handle.paddlemix_time_product.argtypes = [small, whole, whole, whole, *(small,) * 4, real, reals, reals]
    handle.paddlemix_time_reading.argtypes = [whole, small, reals]
    handle.paddlemix_counted_products.argtypes = [ctypes.POINTER(whole), whole]
    handle.paddlemix_counted_products.restype = whole


def take(handle: ctypes.CDLL, choice: Choice) -> None:
    """Let a library compute as was chosen.

    Args:
        handle: the library.
        choice: what computes.
    """
    handle.paddlemix_choose_products(int(choice.mkl), int(choice.widened), choice.few_rows)
    handle.paddlemix_set_num_threads(choice.threads)
