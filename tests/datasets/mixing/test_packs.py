from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddlemix.datasets.mixing.packs import PackPlanner, mean_fill, plan_packs

CAPACITY = 60
some_lengths = st.lists(st.integers(1, CAPACITY), max_size=200)


def flat(packs):
    return [index for pack in packs for index in pack]


def plan(lengths, capacity=CAPACITY, window=16, seed=0):
    generator = np.random.default_rng(seed)
    return PackPlanner(capacity, window).plan(generator.permutation(len(lengths)), np.array(lengths), generator)


def slow_best_fit(lengths, capacity):
    """Compute best-fit decreasing as it is defined: how full each pack ends."""
    fills = []
    for length in sorted(lengths, reverse=True):
        fitting = [pack for pack in range(len(fills)) if fills[pack] + length <= capacity]
        if fitting:
            fills[max(fitting, key=lambda pack: fills[pack])] += length
        else:
            fills.append(length)
    return sorted(fills)


def log_normal(count, capacity=2048):
    """Draw lengths of a median of 300 tokens."""
    drawn = np.exp(np.random.default_rng(3).normal(np.log(300), 0.8, count))
    return np.clip(drawn, 1, capacity).astype(np.int64)


@settings(deadline=None)
@given(some_lengths)
def test_packs_are_filled_as_best_fit_decreasing_fills_them(lengths):
    packs = plan_packs(lengths, capacity=CAPACITY)
    assert sorted(flat(packs)) == list(range(len(lengths)))
    assert sorted(sum(lengths[index] for index in pack) for pack in packs) == slow_best_fit(lengths, CAPACITY)


@settings(deadline=None)
@given(some_lengths.filter(bool))
def test_the_emptiest_pack_is_the_last(lengths):
    fills = [sum(lengths[index] for index in pack) for pack in plan_packs(lengths, capacity=CAPACITY)]
    assert fills[-1] == min(fills)


@settings(deadline=None)
@given(some_lengths, st.integers(1, 250), st.integers(0, 3))
def test_a_plan_holds_every_sample_once_and_no_pack_too_many_tokens(lengths, window, seed):
    packs = plan(lengths, window=window, seed=seed)
    assert sorted(flat(packs)) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in pack) <= CAPACITY for pack in packs)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, CAPACITY), min_size=60, max_size=200))
def test_the_generator_alone_decides_a_plan(lengths):
    assert plan(lengths, seed=1) == plan(lengths, seed=1)
    assert plan(lengths, seed=1) != plan(lengths, seed=2)


def test_only_samples_of_the_order_are_planned():
    packs = PackPlanner(CAPACITY).plan(np.array([5, 1, 5]), np.arange(1, 10), np.random.default_rng(0))
    assert sorted(flat(packs)) == [1, 5, 5]


@pytest.mark.parametrize("lengths", [[3, CAPACITY + 1], [0, 3]])
def test_a_sample_that_fits_no_pack_is_refused(lengths):
    with pytest.raises(ValueError, match=f"expected 1 to {CAPACITY}, the tokens one pack holds"):
        plan(lengths)


def test_packs_of_log_normal_lengths_are_nearly_full():
    lengths = log_normal(20_000)
    assert 290 < np.median(lengths) < 310 and lengths.max() == 2048
    assert mean_fill(plan(lengths, 2048, window=4096), lengths, 2048) > 0.995


def test_short_and_long_packs_come_in_no_order():
    lengths = log_normal(20_000)
    sizes = [len(pack) for pack in plan(lengths, 2048, window=4096)]
    assert np.std(sizes) > 1 and abs(np.corrcoef(sizes, np.arange(len(sizes)))[0, 1]) < 0.05


def test_a_window_keeps_packs_near_the_order():
    lengths, window = log_normal(20_000), 512
    packs = PackPlanner(2048, window).plan(np.arange(len(lengths)), lengths, np.random.default_rng(0))
    # A window's emptiest pack joins the next window, so a pack may reach over two of them, seldom more.
    assert np.quantile([max(pack) - min(pack) for pack in packs], 0.99) < 2 * window
    order = np.array([np.median(pack) for pack in packs])
    assert np.corrcoef(order, np.arange(len(order)))[0, 1] > 0.99


def test_the_mean_fill_is_the_share_that_samples_take():
    assert mean_fill([[0, 1], [2]], np.array([3, 4, 8]), 10) == 0.75


def test_packs_in_order_are_the_order_cut_where_a_pack_is_full():
    lengths = np.array([30, 30, 10, 50, 60, 5, 5])
    order = np.array([6, 0, 1, 2, 3, 4, 5])
    packs = PackPlanner(60).plan_in_order(order, lengths)
    assert packs == [[6, 0], [1, 2], [3], [4], [5]]
    with pytest.raises(ValueError, match="expected 1 to 59"):
        PackPlanner(59).plan_in_order(order, lengths)
