from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddlemix.datasets.mixing.loss_weights import weigh
from paddlemix.datasets.mixing.mixture import MixedSet, Mixture
from paddlemix.datasets.mixing.packs import PackPlanner
from paddlemix.datasets.mixing.rows import GROUPED_BATCHES, PackedRows, SingleRows
from paddlemix.datasets.mixing.sampler import BatchShape, GlobalBatchSampler, WholeSetSampler

CAPACITY = 1000


def order_of(count, seed):
    return Mixture((MixedSet(count),), seed=seed).order


def lengths_of(count):
    return np.random.default_rng(9).integers(10, CAPACITY, count)


def targets_of(count):
    """Draw target tokens; some samples have none."""
    return np.random.default_rng(8).integers(0, 50, count)


def make(count=100, rows=4, ranks=1, rank=0, accumulation=1, packs=False, grouped=False, epoch=0, seed=3, **settings):
    shape = BatchShape(rows, accumulation, ranks, rank)
    plan = (
        PackedRows(lengths_of(count), order_of(count, seed), seed, PackPlanner(CAPACITY, window=64))
        if packs
        else SingleRows(lengths_of(count), order_of(count, seed), seed, grouped=shape.wide if grouped else 1)
    )
    sampler = GlobalBatchSampler(range(count), plan, targets_of(count), shape, **settings)
    sampler.set_epoch(epoch)
    return sampler


def all_ranks(ranks, **options):
    """Collect each rank's batches."""
    return [list(make(ranks=ranks, rank=rank, **options)) for rank in range(ranks)]


def indices(batches):
    return [index for batch in batches for draw in batch for index in draw.indices]


def flat(nested):
    return list(chain.from_iterable(nested))


def loss_of(draws, token_loss):
    """Add up the batches' losses, when every target token of a sample costs the same."""
    return sum(
        weight * targets_of(len(token_loss))[index] * token_loss[index]
        for draw in draws
        for index, weight in zip(draw.indices, draw.weights, strict=True)
    )


cuts = {
    "rows": st.integers(1, 5),
    "ranks": st.integers(1, 4),
    "accumulation": st.integers(1, 4),
    "packs": st.booleans(),
    "grouped": st.booleans(),
    "epoch": st.integers(0, 2),
}


@settings(deadline=None)
@given(count=st.integers(1, 120), **cuts)
def test_an_epoch_weighs_each_sample_once_and_fillers_not_at_all(count, **options):
    shared = all_ranks(count=count, loss_per="sample", **options)
    draws = flat(flat(shared))
    weighed = [index for draw in draws for index, weight in zip(draw.indices, draw.weights, strict=True) if weight]
    assert {index for draw in draws for index in draw.indices} == set(range(count))
    assert len(set(weighed)) == len(weighed)
    assert {index for index in range(count) if targets_of(count)[index]} <= set(weighed)


@settings(deadline=None)
@given(count=st.integers(1, 120), drop_last=st.booleans(), **cuts)
def test_all_ranks_have_as_many_batches_and_no_batch_is_empty_or_too_large(count, drop_last, **options):
    shared = all_ranks(count=count, drop_last=drop_last, **options)
    sampler = make(count=count, drop_last=drop_last, **options)
    assert {len(batches) for batches in shared} == {len(sampler)} == {sampler.steps * options["accumulation"]}
    assert all(1 <= len(batch) <= options["rows"] for batch in flat(shared))


@settings(deadline=None)
@given(count=st.integers(1, 120), loss_per=st.sampled_from(["token", "sample"]), **cuts)
def test_the_losses_of_all_ranks_and_accumulated_batches_add_up_to_each_steps_mean(count, loss_per, **options):
    token_loss, targets = np.random.default_rng(1).uniform(1, 9, count), targets_of(count)
    shared = all_ranks(count=count, loss_per=loss_per, **options)
    size = options["accumulation"]
    for start in range(0, len(shared[0]), size):
        draws = flat(flat(batches[start : start + size] for batches in shared))
        members = sorted({index for draw in draws for index in draw.indices})
        asked = [index for index in members if targets[index]]
        if not asked:
            assert loss_of(draws, token_loss) == 0
            continue
        wanted = np.average(token_loss[asked], weights=targets[asked] if loss_per == "token" else None)
        np.testing.assert_allclose(loss_of(draws, token_loss), wanted, rtol=1e-12)


@pytest.mark.parametrize("packs", [False, True])
def test_a_step_that_is_not_full_fills_its_batches_with_draws_of_no_weight(packs):
    shared = all_ranks(3, count=4, rows=2, accumulation=3, packs=packs)
    draws = flat(flat(shared))
    assert len(shared[0]) == 3 and len(draws) == 9
    assert sum(any(draw.weights) for draw in draws) <= 4


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(
    ("count", "rows", "accumulation", "ranks"), [(100, 4, 1, 1), (101, 4, 1, 1), (103, 4, 2, 2), (50, 8, 1, 3)]
)
def test_all_but_the_last_step_are_full_and_the_last_can_be_dropped(count, rows, accumulation, ranks, drop_last):
    options = {"count": count, "rows": rows, "accumulation": accumulation, "drop_last": drop_last}
    whole, rest = divmod(count, rows * accumulation * ranks)
    shared = all_ranks(ranks, **options)
    assert len(shared[0]) == (whole + (1 if rest and not drop_last else 0)) * accumulation
    assert all(len(batch) == rows for batches in shared for batch in batches[: whole * accumulation])


@pytest.mark.parametrize("packs", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_the_order_is_shuffled_and_seed_and_epoch_alone_decide_it(grouped, packs):
    order = indices(make(grouped=grouped, packs=packs))
    assert order != sorted(order)
    assert indices(make(grouped=grouped, packs=packs)) == order
    assert indices(make(grouped=grouped, packs=packs, epoch=1)) != order
    assert indices(make(grouped=grouped, packs=packs, seed=4)) != order


def test_iterating_twice_gives_the_same_epoch_until_another_is_set():
    sampler = make()
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first


def test_an_epoch_whose_packs_take_other_steps_takes_the_first_epochs_in_another_order():
    samplers = [make(count=400, rows=1, packs=True, epoch=epoch, seed=2) for epoch in range(12)]
    counts = [len(sampler.plan.rows(epoch)) for epoch, sampler in enumerate(samplers)]
    other = [epoch for epoch in range(1, 12) if counts[epoch] != counts[0]]
    same = [epoch for epoch in range(1, 12) if counts[epoch] == counts[0]]
    assert other and same
    packs = [{draw.indices for batch in sampler for draw in batch} for sampler in samplers]
    assert all(len(sampler) == counts[0] == len(list(sampler)) for sampler in samplers)
    assert packs[other[0]] == packs[0] and indices(samplers[other[0]]) != indices(samplers[0])
    assert packs[same[0]] != packs[0]


def spread(batches, count):
    """Average over batches the longest less the shortest sample."""
    return np.mean([np.ptp(lengths_of(count)[indices([batch])]) for batch in batches])


@pytest.mark.parametrize("ranks", [1, 2])
def test_grouped_batches_hold_closer_lengths(ranks):
    grouped, mixed = (flat(all_ranks(ranks, count=1000, grouped=choice)) for choice in (True, False))
    assert spread(grouped, 1000) < 0.1 * spread(mixed, 1000)


def test_grouped_batches_do_not_come_sorted_by_length():
    # As many as are sorted together: without shuffling, the batches would come in the order of their lengths.
    means = np.array([lengths_of(200)[indices([batch])].mean() for batch in make(200, grouped=True)])
    assert len(means) == GROUPED_BATCHES
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.4


def test_ranks_draw_batches_of_about_the_same_length_together():
    first, second = all_ranks(2, count=1000, grouped=True)
    longest = [[lengths_of(1000)[indices([batch])].max() for batch in batches] for batches in (first, second)]
    assert np.abs(np.subtract(*longest)).mean() < 50


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.integers(1, 4), st.integers(1, 5))
def test_evaluation_draws_all_samples_once_and_its_losses_add_up_to_the_token_mean(targets, ranks, rows):
    all_rows = [[index] for index in range(len(targets))]
    samplers = [WholeSetSampler(all_rows, np.array(targets), BatchShape(rows, 1, ranks, rank)) for rank in range(ranks)]
    batches = [list(sampler) for sampler in samplers]
    assert len({tuple(map(len, of_rank)) for of_rank in batches}) == 1, "all ranks call the model as often"
    draws = flat(flat(batches))
    fillers = -len(targets) % ranks
    assert sum(draw.weights == (0.0,) for draw in draws) >= fillers and len(draws) == len(targets) + fillers
    assert {draw.indices for draw in draws} == {(index,) for index in range(len(targets))}
    total = sum(draw.weights[0] * targets[draw.indices[0]] for draw in draws)
    assert total == pytest.approx(1 if any(targets) else 0)


def test_evaluation_stops_after_so_many_batches_and_takes_their_mean():
    rows, targets = [[index] for index in range(10)], np.arange(10)
    samplers = [WholeSetSampler(rows, targets, BatchShape(2, 1, 2, rank), max_batches=1) for rank in range(2)]
    assert [[[draw.indices for draw in batch] for batch in sampler] for sampler in samplers] == [
        [[(0,), (2,)]],
        [[(1,), (3,)]],
    ]
    assert {draw.weights[0] for sampler in samplers for batch in sampler for draw in batch} == {1 / 6}


def test_samples_without_targets_do_not_count():
    draws = weigh([[0, 1], [2]], np.array([4, 0, 2]), "sample")
    assert draws[0].weights[0] == 1 / 8 and draws[1].weights == (1 / 4,)


@settings(deadline=None)
@given(count=st.integers(1, 80), data=st.data(), **cuts)
def test_an_epoch_that_begins_in_the_middle_goes_on_as_one_that_was_not_interrupted(count, data, ranks, **cuts):
    rank = data.draw(st.integers(0, ranks - 1))
    whole, resumed = (make(count, ranks=ranks, rank=rank, **cuts) for _ in range(2))
    step = data.draw(st.integers(0, whole.steps))
    resumed.begin_at(step)
    batches = list(whole)
    assert list(resumed) == batches[step * cuts["accumulation"] :]
    # Only the next iteration is a resumed one.
    assert list(resumed) == batches


@settings(deadline=None)
@given(count=st.integers(1, 80), **cuts)
def test_the_rows_of_a_step_are_what_all_ranks_draw_in_it(count, ranks, epoch, **cuts):
    sampler = make(count, ranks=ranks, epoch=epoch, **cuts)
    everyone = all_ranks(ranks, count=count, epoch=epoch, **cuts)
    # A row that fills a batch up is one of the same step.
    drawn = {draw.indices for batches in everyone for batch in batches for draw in batch}
    rows = {tuple(row) for step in range(sampler.steps) for row in sampler.rows_of(epoch, step)}
    assert drawn == rows


def test_samplers_that_draw_otherwise_have_other_fingerprints():
    prints = [
        make(**options).fingerprint
        for options in ({}, {"seed": 4}, {"count": 99}, {"rows": 2}, {"accumulation": 2}, {"packs": True})
    ]
    assert len(set(prints)) == len(prints)
    assert make(ranks=2, rows=2).fingerprint == make().fingerprint == make(ranks=2, rows=2, rank=1).fingerprint


@pytest.mark.parametrize("packs", [False, True])
def test_rows_keep_the_order_of_the_files_in_every_epoch(packs):
    def make_in_order(repeat, epoch):
        order, lengths = Mixture((MixedSet(60, repeat=repeat),), shuffle=False).order, lengths_of(60)
        plan = (
            PackedRows(lengths, order, 0, PackPlanner(CAPACITY), in_order=True)
            if packs
            else SingleRows(lengths, order, 0, in_order=True)
        )
        sampler = GlobalBatchSampler(range(60), plan, targets_of(60), BatchShape(1))
        sampler.set_epoch(epoch)
        return sampler

    for epoch in range(3):
        assert indices(make_in_order(1, epoch)) == list(range(60))
        # Of a part of the set other epochs may take more or fewer packs than the first, which then come again.
        drawn = indices(make_in_order(0.5, epoch))
        assert drawn == sorted(drawn) and len(make_in_order(0.5, epoch)) == len(make_in_order(0.5, 0))
    assert make_in_order(1, 0).fingerprint != make(60, rows=1, packs=packs).fingerprint
