"""What the built library measures of itself, and what it computes whichever way is chosen."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import product

import numpy as np
import paddle
import pytest

from paddlemix._environment import SHARED_VARIABLE, may_take_fewer_threads, read_cpuinfo, share_cores
from paddlemix.ops import linear, linear_cross_entropy, set_compute_dtype
from paddlemix.ops.probing.choice import Choice
from paddlemix.ops.probing.measure import measure, take
from paddlemix.ops.tensors import built


@pytest.fixture(autouse=True)
def library() -> Iterator[built.Library]:
    found = built.library()
    if found.handle is None:
        pytest.skip(f"no built ops: {found.reason}")
    yield found
    set_compute_dtype("float32")
    take(found.handle, found.speed.choice)


def test_measuring_takes_less_than_a_tenth_of_a_second_of_work_and_finds_rates(library: built.Library) -> None:
    rates = measure(library.handle, 2, takes_fewer=True)
    # 31 to 42 ms with threads, on a busy machine too: it counts work, not time. Without AVX2 products take longer.
    assert rates.are_sound() and rates.widened and rates.few_rows[4] and rates.few_rows_by_library[16]
    assert rates.seconds < (0.1 if "avx2" in read_cpuinfo() else 2)


PROGRAM = """
import paddle
from paddlemix.ops import linear, set_compute_dtype
from paddlemix.ops.tensors import built
set_compute_dtype("bfloat16")
y = linear(paddle.ones([40, 3]) / 3, paddle.ones([3, 2]))
print("found", built.speed().rates.onednn, built.speed().rates.bfloat16, built.speed().choice.widened, float(y.sum()))
"""
# A third is rounded to 0.333984375, by which the sum of 80 times three of them is known.
ROUNDED_SUM = 80 * 3 * 0.333984375


def run_program(**variables: str) -> tuple[list[str], list[str]]:
    environment = {**os.environ, **variables}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    return next(line.split()[1:] for line in lines if line.startswith("found")), lines


def test_another_process_takes_what_was_measured_and_the_widest_instructions(library: built.Library) -> None:
    (onednn, _, _, total), lines = run_program(ONEDNN_VERBOSE="1")
    assert float(onednn) == library.speed.rates.onednn and float(total) == ROUNDED_SUM
    flags = set(read_cpuinfo().split())
    wanted = "amx" if "amx_bf16" in flags else "avx512_core_bf16" if "avx512_bf16" in flags else ""
    if not wanted:
        pytest.skip("the processor has no instructions for bfloat16, neither AMX nor AVX-512's")
    executed = [line for line in lines if ",exec," in line and "matmul" in line and "bf16" in line.split(",src")[-1]]
    assert executed and all(wanted in line for line in executed), lines


def test_without_instructions_for_it_rounded_factors_are_held_in_float32(library: built.Library) -> None:
    (onednn, bfloat16, widened, total), _ = run_program(ONEDNN_MAX_CPU_ISA="AVX2")
    assert float(onednn) != library.speed.rates.onednn, "another setting is another machine"
    assert (float(bfloat16), widened, float(total)) == (0, "True", ROUNDED_SUM)


WAYS = [Choice(mkl, widened, False, few, 2) for mkl, widened, few in product((False, True), (False, True), (1, 4, 16))]


def values(choice: Choice, handle, dtype: str, rows: int, activation: str | None) -> list[np.ndarray]:
    take(handle, choice)
    set_compute_dtype(dtype)
    rng = np.random.default_rng(0)
    shapes = (rows, 300), (300, 70), (70,), (50, 70)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    x, weight, bias, head = (paddle.to_tensor(array, stop_gradient=False) for array in arrays)
    y = linear(x, weight, bias, activation)
    targets = paddle.to_tensor(rng.integers(0, 50, rows))
    loss = linear_cross_entropy(y / 17, head, targets, paddle.ones([rows]) / rows, transposed=True)
    (y.sum() + loss).backward()
    return [one.numpy() for one in (y, loss, x.grad, weight.grad, bias.grad, head.grad)]


@pytest.mark.parametrize("rows", [1, 7, 16, 64])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_results_are_equal_whichever_way_is_chosen(library: built.Library, rows: int, dtype: str) -> None:
    # Sums of up to 300 products in another order: 1.9e-6 of the largest number was measured in float32. From bfloat16 a
    # later product's factors are results of an earlier one, of which some are rounded the other way: 1e-3.
    bound = 4e-6 if dtype == "float32" else 4e-3
    has_bfloat16 = library.speed.rates.bfloat16 > 0
    for activation in (None, "gelu"):
        ways = [way for way in WAYS if dtype == "float32" or way.widened or has_bfloat16]
        wanted, *others = [values(way, library.handle, dtype, rows, activation) for way in ways]
        for way, found in zip(ways[1:], others, strict=True):
            for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
                assert np.abs(one - other).max() <= bound * np.abs(other).max(), (way, activation, number)


def test_what_another_process_measured_is_taken_over_where_the_machine_is_the_same(library: built.Library) -> None:
    own = library.speed
    slow = dataclasses.replace(own, rates=dataclasses.replace(own.rates, bfloat16=1.0, widened=0.5))
    try:
        built.take_speed(slow)
        assert built.speed() == slow and not built.speed().choice.rounding_pays
        built.take_speed(dataclasses.replace(own, machine=dataclasses.replace(own.machine, cores=999)))
        assert built.speed() == slow
    finally:
        built.take_speed(own)


def test_the_number_of_threads_is_ours_until_somebody_sets_another() -> None:
    environment: dict[str, str] = {}
    share_cores(environment, 4)
    assert may_take_fewer_threads(environment) and environment[SHARED_VARIABLE] == "4"
    assert not may_take_fewer_threads({**environment, "MKL_NUM_THREADS": "2"})
    for given in ({"MKL_NUM_THREADS": "4"}, {"OMP_NUM_THREADS": "4"}):
        share_cores(given, 4)
        assert not may_take_fewer_threads(given)
