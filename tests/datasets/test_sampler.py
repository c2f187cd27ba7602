from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from paddlemix.datasets.sampler import GROUPED_BATCHES, ShuffledBatchSampler


def lengths_of(count):
    return np.random.default_rng(9).integers(10, 1000, count)


def make(count=100, batch_size=4, epoch=0, **settings):
    options = {"group_by_length": False, "seed": 3, **settings}
    sampler = ShuffledBatchSampler(range(count), lengths_of(count), batch_size=batch_size, **options)
    sampler.set_epoch(epoch)
    return sampler


def flat(batches):
    return list(chain.from_iterable(batches))


def spread(batches, count):
    """Mean over batches of the longest less the shortest sample."""
    return np.mean([np.ptp(lengths_of(count)[batch]) for batch in batches])


@pytest.mark.parametrize("group_by_length", [False, True])
@pytest.mark.parametrize(
    ("count", "batch_size", "ranks"), [(100, 4, 1), (96, 4, 2), (1001, 3, 7), (10, 4, 1), (3, 4, 1)]
)
def test_an_epoch_draws_each_record_once(count, batch_size, ranks, group_by_length):
    drawn = [
        flat(make(count, batch_size, group_by_length=group_by_length, num_replicas=ranks, rank=rank))
        for rank in range(ranks)
    ]
    assert count % ranks == 0
    assert sorted(flat(drawn)) == list(range(count))


@pytest.mark.parametrize("group_by_length", [False, True])
@pytest.mark.parametrize(("count", "ranks"), [(100, 3), (2, 8), (25, 2)])
def test_ranks_that_do_not_share_evenly_draw_as_many_and_miss_none(count, ranks, group_by_length):
    drawn = [list(make(count, group_by_length=group_by_length, num_replicas=ranks, rank=rank)) for rank in range(ranks)]
    assert len({tuple(len(batch) for batch in batches) for batches in drawn}) == 1
    indices = flat(flat(drawn))
    assert set(indices) == set(range(count)) and len(indices) - count < ranks


@pytest.mark.parametrize("group_by_length", [False, True])
def test_the_order_is_shuffled_and_seed_and_epoch_alone_decide_it(group_by_length):
    order = flat(make(group_by_length=group_by_length))
    assert order != sorted(order)
    assert flat(make(group_by_length=group_by_length)) == order
    assert flat(make(group_by_length=group_by_length, epoch=1)) != order
    assert flat(make(group_by_length=group_by_length, seed=4)) != order


def test_iterating_twice_gives_the_same_epoch_until_another_is_set():
    sampler = make()
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first


@pytest.mark.parametrize("ranks", [1, 2])
def test_grouped_batches_hold_closer_lengths(ranks):
    count = 1000
    grouped, mixed = (
        flat(list(make(count, 4, group_by_length=choice, num_replicas=ranks, rank=rank)) for rank in range(ranks))
        for choice in (True, False)
    )
    assert spread(grouped, count) < 0.1 * spread(mixed, count)


def test_grouped_batches_do_not_come_sorted_by_length():
    # As many as are sorted together: without shuffling, the batches would come in the order of their lengths.
    means = np.array([lengths_of(200)[batch].mean() for batch in make(200, group_by_length=True)])
    assert len(means) == GROUPED_BATCHES
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.4


def test_ranks_draw_batches_of_about_the_same_length_together():
    first, second = (list(make(1000, group_by_length=True, num_replicas=2, rank=rank)) for rank in range(2))
    lengths = lengths_of(1000)
    apart = [abs(lengths[one].max() - lengths[other].max()) for one, other in zip(first, second, strict=True)]
    assert np.mean(apart) < 50


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("group_by_length", [False, True])
@pytest.mark.parametrize(
    ("count", "batch_size", "ranks"), [(100, 4, 1), (101, 4, 1), (103, 4, 2), (50, 8, 3), (3, 4, 1)]
)
def test_len_is_the_number_of_batches_and_all_but_the_last_are_full(
    count, batch_size, ranks, group_by_length, drop_last
):
    sampler = make(
        count, batch_size, group_by_length=group_by_length, drop_last=drop_last, num_replicas=ranks, rank=ranks - 1
    )
    sizes = [len(batch) for batch in sampler]
    assert len(sampler) == len(sizes)
    assert all(size == batch_size for size in sizes[:-1] if sizes)
    share = -(-count // ranks)
    assert sum(sizes) == (share // batch_size * batch_size if drop_last else share)
