"""From rates to what computes: a pure function, so that two processes with the same rates choose alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

# How many times as fast another way must be before it is taken. Far from what noise makes of two ways that are equally
# fast, so that a machine that is measured twice chooses alike, and bits do not change from start to start.
WORTHWHILE = 1.2
# Of bfloat16, for which rounding is worth its error. Far from what either kind of processor gives (1.6 on an EPYC 9004,
# rounding counted; about 0.5 on a Xeon of family 6, model 207).
WORTH_ROUNDING = 1.1
# Rows up to which our own registers compute where nothing speaks against it, and what else is tried.
FEW_ROWS, MORE_ROWS = 4, (8, 16)


@dataclass(frozen=True)
class Rates:
    """What was measured, in GFLOP/s of one thread; 0 where there is no such way here.

    Attributes:
        onednn: float32 products by oneDNN.
        mkl: the same by the MKL of Paddle's wheels.
        bfloat16: by oneDNN from factors rounded to bfloat16, rounding counted.
        widened: by the faster of the two in float32 from factors so rounded, rounding counted.
        threads: float32 products by oneDNN, by the number of threads; none where that was not measured.
        few_rows: products of so many rows by our own registers.
        few_rows_by_library: the same by the faster library.
        seconds: of the processor's that measuring took.
    """

    onednn: float
    mkl: float = 0.0
    bfloat16: float = 0.0
    widened: float = 0.0
    threads: Mapping[int, float] = field(default_factory=dict)
    few_rows: Mapping[int, float] = field(default_factory=dict)
    few_rows_by_library: Mapping[int, float] = field(default_factory=dict)
    seconds: float = 0.0

    def are_sound(self) -> bool:
        """Tell whether they can be what a machine was measured to do."""
        by_number = (self.threads, self.few_rows, self.few_rows_by_library)
        numbers = [self.mkl, self.bfloat16, self.widened, self.seconds, *(r for one in by_number for r in one.values())]
        return (
            math.isfinite(self.onednn)
            and self.onednn > 0
            and all(math.isfinite(number) and number >= 0 for number in numbers)
            and all(key >= 1 for one in by_number for key in one)
        )


@dataclass(frozen=True)
class Choice:
    """What computes products.

    Attributes:
        mkl: whether MKL computes those in float32; oneDNN else.
        widened: whether factors that are rounded to bfloat16 are multiplied in float32.
        rounding_pays: whether products from bfloat16 are so much faster that `auto` takes them.
        few_rows: up to how many rows our own registers compute.
        threads: how many compute.
    """

    mkl: bool
    widened: bool
    rounding_pays: bool
    few_rows: int
    threads: int


def choose(rates: Rates, threads: int) -> Choice:
    """Choose what computes.

    Args:
        rates: of this machine.
        threads: how many may compute.

    Returns:
        The choice.
    """
    by_mkl = prefers_mkl(rates.onednn, rates.mkl)
    wide = rates.mkl if by_mkl else rates.onednn
    return Choice(
        mkl=by_mkl,
        # Where bfloat16 is slower than float32 it may still be asked for, or a run have begun in it.
        widened=rates.bfloat16 < rates.widened or not rates.bfloat16,
        rounding_pays=rates.bfloat16 > WORTH_ROUNDING * wide,
        few_rows=_choose_few_rows(rates),
        threads=choose_threads(rates.threads, threads),
    )


def prefers_mkl(onednn: float, mkl: float) -> bool:
    """Tell from the rates of both whether MKL computes float32 products."""
    return mkl > WORTHWHILE * onednn


def choose_threads(rates: Mapping[int, float], most: int) -> int:
    """Choose how many threads compute.

    Args:
        rates: in GFLOP/s, by number of threads.
        most: how many may compute.

    Returns:
        `most`, unless fewer are clearly faster, as where two of them share a core, or a container has less of the
        machine's time than it sees cores.
    """
    chosen = most
    for fewer in sorted((one for one in rates if one < most), reverse=True):
        if rates[fewer] > WORTHWHILE * rates.get(chosen, 0.0):
            chosen = fewer
    return chosen


def _choose_few_rows(rates: Rates) -> int:
    def gain(rows: int) -> float:
        by_library = rates.few_rows_by_library.get(rows, 0.0)
        return rates.few_rows.get(rows, 0.0) / by_library if by_library else 1.0

    if gain(FEW_ROWS) * WORTHWHILE < 1:
        return 1  # one row is read as fast as memory allows
    chosen = FEW_ROWS
    for rows in MORE_ROWS:
        if gain(rows) < WORTHWHILE:
            break
        chosen = rows
    return chosen
