"""What is measured where other programs are in the way, and where they are not; the library is made up."""

from __future__ import annotations

from typing import Any

import pytest

from paddlemix.ops.probing.choice import choose
from paddlemix.ops.probing.measure import Path, measure


class FakeLibrary:
    """Computes at given rates, in GFLOP/s of a thread, and loses some of its time to others.

    Args:
        rates: by way to compute.
        by_threads: how many times as fast so many threads are as one.
        lost: how many times as long a product takes by the wall clock as it computes.
        lost_later: the same once the number of threads has gone down.
    """

    def __init__(
        self, rates: dict[Path, float], by_threads: dict[int, float], lost: float = 1.0, lost_later: float = 1.0
    ) -> None:
        self.lost_later = lost_later
        self.rates, self.by_threads, self.lost = rates, by_threads, lost
        self.threads, self.tried = 0, list[int]()

    def paddlemix_set_num_threads(self, threads: int) -> None:
        if threads < self.threads:
            self.lost = self.lost_later
        self.threads = threads
        self.tried.append(threads)

    def paddlemix_choose_products(self, mkl: int, widened: int, few_rows: int) -> None:
        pass

    def paddlemix_time_product(
        self, path: int, m: int, k: int, n: int, left: int, right: int, rounds: int, runs: int, most: float, *out: Any
    ) -> int:
        rate = self.rates.get(Path(path), 0.0) * self.by_threads[self.threads]
        if not rate:
            return 0
        wall, own = out
        for run in range(runs):
            own[run] = 2e-9 * m * k * n / rate * (3 if run == 0 else 1)  # the first one prepares
            wall[run] = own[run] * self.lost
        return runs


RATES = {Path.ONEDNN: 150.0, Path.MKL: 152.0, Path.REGISTERS: 40.0, Path.BFLOAT16: 78.0, Path.WIDENED: 140.0}
SHARED_CORES = {1: 1.0, 2: 1.9, 4: 3.6, 8: 2.5}


def test_rates_are_those_of_the_best_product() -> None:
    rates = measure(FakeLibrary(RATES, SHARED_CORES), 1, takes_fewer=True)
    found = [rates.onednn, rates.mkl, rates.bfloat16, rates.widened, rates.few_rows[8], rates.few_rows_by_library[8]]
    assert found == pytest.approx([150, 152, 78, 140, 40, 150]) and not rates.threads


def test_a_way_that_the_library_has_not_is_no_rate() -> None:
    fewer = {path: rate for path, rate in RATES.items() if path not in (Path.MKL, Path.BFLOAT16)}
    rates = measure(FakeLibrary(fewer, SHARED_CORES), 1, takes_fewer=True)
    assert (rates.mkl, rates.bfloat16) == (0, 0) and choose(rates, 1).widened


def test_threads_are_halved_as_long_as_that_pays() -> None:
    library = FakeLibrary(RATES, SHARED_CORES)
    rates = measure(library, 8, takes_fewer=True)
    assert rates.threads == pytest.approx({8: 375, 4: 540, 2: 285}) and library.tried == [1, 8, 4, 2, 1]
    assert choose(rates, 8).threads == 4


@pytest.mark.parametrize(("takes_fewer", "lost", "later"), [(False, 1.0, 1.0), (True, 1.5, 1.5), (True, 1.0, 1.5)])
def test_the_users_number_of_threads_and_a_busy_machine_are_left_alone(
    takes_fewer: bool, lost: float, later: float
) -> None:
    rates = measure(FakeLibrary(RATES, SHARED_CORES, lost, later), 8, takes_fewer=takes_fewer)
    assert not rates.threads and choose(rates, 8).threads == 8
    assert rates.onednn == pytest.approx(150), "what others take of the time does not count"
