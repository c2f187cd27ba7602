"""Which rates make what compute; the rates are made up, but for two that were measured."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from paddlemix.ops.probing.choice import Choice, Rates, choose

# One thread of an EPYC 9004, of a Xeon of family 6, model 207, of one with AMX, and of a processor with AVX2 alone.
EPYC = Rates(200, 195, 320, 180)
XEON = Rates(150, 152, 78, 140)
AMX = Rates(150, 152, 900, 140)
AVX2 = Rates(60, 20, 0, 55)
AS_EVER = Choice(mkl=False, widened=False, rounding_pays=False, few_rows=4, threads=2)


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        (EPYC, {"rounding_pays": True}),
        (AMX, {"rounding_pays": True}),
        # Where bfloat16 is asked for nevertheless, its factors are held in float32.
        (XEON, {"widened": True}),
        (AVX2, {"widened": True}),
        (Rates(100, 119, 90, 80), {}),
        (Rates(100, 121, 90, 80), {"mkl": True}),
        # Faster than oneDNN in float32, but not than what would compute in its place.
        (Rates(100, 300, 200, 250), {"mkl": True, "widened": True}),
        (Rates(100, 100, 109, 80), {}),
        (Rates(100, 100, 111, 80), {"rounding_pays": True}),
        (Rates(100), {"widened": True}),
    ],
)
def test_rates_choose_the_library_and_whether_rounding_pays(rates: Rates, expected: dict[str, object]) -> None:
    assert choose(rates, threads=2) == dataclasses.replace(AS_EVER, **expected)


@pytest.mark.parametrize(
    ("rates", "most", "threads"),
    [
        ({}, 8, 8),
        ({2: 380, 1: 200}, 2, 2),
        ({2: 205, 1: 200}, 2, 2),
        # Two threads a core that are in each other's way.
        ({4: 300, 2: 400, 1: 210}, 4, 2),
        # A container that sees 64 cores and has the time of 8.
        ({64: 50, 32: 120, 16: 300, 8: 700, 4: 420}, 64, 8),
        ({2: 100, 1: 119}, 2, 2),
    ],
)
def test_fewer_threads_compute_only_where_that_is_clearly_faster(
    rates: dict[int, float], most: int, threads: int
) -> None:
    assert choose(Rates(100, threads=rates), most).threads == threads


@pytest.mark.parametrize(
    ("ours", "library", "rows"),
    [
        ({}, {}, 4),
        ({4: 43, 8: 46, 16: 45}, {4: 46, 8: 67, 16: 83}, 4),
        ({4: 30, 8: 46, 16: 45}, {4: 46, 8: 67, 16: 83}, 1),
        ({4: 43, 8: 60, 16: 45}, {4: 20, 8: 40, 16: 83}, 8),
        ({4: 43, 8: 60, 16: 90}, {4: 20, 8: 40, 16: 50}, 16),
        ({4: 43, 8: 44, 16: 90}, {4: 40, 8: 40, 16: 50}, 4),
    ],
)
def test_our_registers_compute_as_many_rows_as_they_are_faster_at(
    ours: dict[int, float], library: dict[int, float], rows: int
) -> None:
    assert choose(Rates(100, few_rows=ours, few_rows_by_library=library), 2).few_rows == rows


@pytest.mark.parametrize("rates", [EPYC, XEON, AMX, AVX2])
def test_a_machine_that_is_measured_again_chooses_alike(rates: Rates) -> None:
    rng = np.random.default_rng(0)
    numbers = np.array([rates.onednn, rates.mkl, rates.bfloat16, rates.widened])
    found = {choose(Rates(*(numbers * rng.uniform(0.92, 1, 4))), 2) for _ in range(1000)}
    assert found == {choose(rates, 2)}


@pytest.mark.parametrize(
    "rates",
    [
        Rates(0),
        Rates(math.nan),
        Rates(math.inf),
        Rates(100, -1),
        Rates(100, threads={0: 10}),
        Rates(100, threads={2: math.nan}),
        Rates(100, few_rows={4: -1.0}),
        Rates(100, seconds=math.inf),
    ],
)
def test_numbers_that_are_no_rates_are_known(rates: Rates) -> None:
    assert not rates.are_sound() and EPYC.are_sound()
