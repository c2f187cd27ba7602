from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddlemix.datasets.mixing.mixture import MixedSet, Mixture

WEIGHTS = st.floats(0.05, 20)
SETS = st.lists(
    st.builds(MixedSet, st.integers(1, 60), WEIGHTS, st.sampled_from([0.5, 1.0, 2.0])), min_size=1, max_size=4
)
STRATEGIES = st.sampled_from(["concat", "interleave_under", "interleave_over"])
MIXTURES = st.builds(Mixture, SETS.map(tuple), STRATEGIES, st.integers(0, 2**31))


def drawn_of(mixture, epoch=0):
    """Count how often an epoch draws each record."""
    return np.bincount(mixture.order(epoch), minlength=sum(one.count for one in mixture.sets))


def of_set(mixture, values, place):
    return values[mixture.offsets[place] : mixture.offsets[place + 1]]


@settings(deadline=None)
@given(MIXTURES, st.integers(0, 5))
def test_an_epoch_draws_of_each_set_what_it_says_and_no_record_again_before_all_others_of_its_set(mixture, epoch):
    order = mixture.order(epoch)
    assert len(order) == len(mixture) == sum(mixture.draws)
    for place, draws in enumerate(mixture.draws):
        times = of_set(mixture, drawn_of(mixture, epoch), place)
        assert times.sum() == draws
        assert times.max() - times.min() <= 1


@settings(deadline=None)
@given(MIXTURES, st.integers(0, 5))
def test_seed_and_epoch_alone_decide_the_order(mixture, epoch):
    again = Mixture(mixture.sets, mixture.strategy, mixture.seed)
    np.testing.assert_array_equal(mixture.order(epoch), again.order(epoch))


@pytest.mark.parametrize("strategy", ["concat", "interleave_under", "interleave_over"])
def test_another_epoch_and_another_seed_have_another_order(strategy):
    sets = (MixedSet(50), MixedSet(70, weight=2.0))
    orders = [Mixture(sets, strategy, seed).order(epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (orders[one] != orders[other]).any()


def test_concat_draws_every_record_as_often_as_its_set_is_repeated():
    mixture = Mixture((MixedSet(10), MixedSet(20, repeat=3), MixedSet(40, repeat=0.5)))
    times = drawn_of(mixture)
    assert of_set(mixture, times, 0).tolist() == [1] * 10
    assert of_set(mixture, times, 1).tolist() == [3] * 20
    assert of_set(mixture, times, 2).sum() == 20
    assert (of_set(mixture, drawn_of(mixture, 1), 2) != of_set(mixture, times, 2)).any()


@settings(deadline=None)
@given(st.lists(st.builds(MixedSet, st.integers(20, 400), WEIGHTS), min_size=2, max_size=4).map(tuple))
def test_interleaving_ends_with_the_first_set_or_the_last(sets):
    under, over = Mixture(sets, "interleave_under"), Mixture(sets, "interleave_over")
    assert all(n <= one.count for n, one in zip(under.draws, sets, strict=True))
    assert any(n == one.count for n, one in zip(under.draws, sets, strict=True))
    assert all(n >= one.count for n, one in zip(over.draws, sets, strict=True))
    assert any(n == one.count for n, one in zip(over.draws, sets, strict=True))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.builds(MixedSet, st.integers(2000, 3000), st.floats(0.3, 3)), min_size=2, max_size=4).map(tuple))
def test_every_stretch_of_an_interleaved_epoch_keeps_the_weights(sets):
    mixture = Mixture(sets, "interleave_under")
    wanted = np.array([one.weight for one in sets]) / sum(one.weight for one in sets)
    order = mixture.set_of(mixture.order(0))
    # A set comes once in each of as many equal stretches of the epoch as it has draws, so a count is off by 2 at most.
    for start in range(0, len(order) - 400, 400):
        found = np.bincount(order[start : start + 400], minlength=len(sets))
        assert np.abs(found - 400 * wanted).max() <= 2 * len(sets) + 1


def test_a_set_that_ends_just_at_the_end_loses_no_record_to_rounding():
    for count in range(1, 500):
        mixture = Mixture((MixedSet(count, weight=0.1), MixedSet(10**6, weight=0.3)), "interleave_under")
        assert mixture.draws[0] == count


def test_each_record_is_found_in_its_set():
    mixture = Mixture((MixedSet(3), MixedSet(1), MixedSet(2)))
    assert mixture.set_of([0, 2, 3, 4, 5]).tolist() == [0, 0, 1, 2, 2]


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ValueError, match="`mix_strategy` is 'shuffle'; expected one of concat, interleave_under"):
        Mixture((MixedSet(1),), "shuffle")


def unshuffled(*sets, strategy="concat"):
    return Mixture(sets, strategy, seed=5, shuffle=False)


def test_without_shuffling_sets_follow_one_another_as_their_files_have_them_in_every_epoch():
    mixture = unshuffled(MixedSet(3), MixedSet(2), MixedSet(4, repeat=2))
    assert all(mixture.order(epoch).tolist() == [0, 1, 2, 3, 4, *[5, 6, 7, 8] * 2] for epoch in range(3))


def test_without_shuffling_a_set_drawn_in_part_goes_on_where_it_was():
    mixture = unshuffled(MixedSet(4, repeat=0.5), MixedSet(1))
    assert [mixture.order(epoch).tolist() for epoch in range(3)] == [[0, 1, 4], [2, 3, 4], [0, 1, 4]]


def test_without_shuffling_interleaved_sets_keep_their_own_order():
    mixture = unshuffled(MixedSet(6, weight=2), MixedSet(3), strategy="interleave_over")
    order = mixture.order(0)
    assert order.tolist() == [0, 6, 1, 2, 7, 3, 4, 8, 5]
    assert mixture.order(1).tolist() == order.tolist()
