from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from paddlemix.generation import GenerationConfig
from paddlemix.generation.sampling import TokenChooser, penalize_repetition, token_probabilities, without_tokens

REFERENCE = Path(__file__).parents[1] / "fixtures" / "generation" / "reference.npz"
LOGITS = arrays(np.float32, st.integers(1, 40), elements=st.floats(-50, 50, width=32))
# Rounded ones tie, as bfloat16's do.
TIED_LOGITS = st.one_of(LOGITS, LOGITS.map(np.round))
PROMPT = np.array([1, 2])


def config_of(**settings):
    return GenerationConfig(**{"temperature": 1.0, **settings})


def chosen(logits, count=1, prompt=PROMPT, end=(), **settings):
    """What one chooser gives, `count` times after one another, for the same logits."""
    chooser = TokenChooser(np.array(prompt), config_of(**settings), end)
    return [chooser.choose(np.array(logits, dtype=np.float32)) for _ in range(count)]


def shares(logits, count, **settings):
    return np.bincount(chosen(logits, count, **settings), minlength=len(logits)) / count


@pytest.fixture(scope="module")
def reference():
    with np.load(REFERENCE) as stored:
        return dict(stored)


def test_every_setting_leaves_the_references_tokens_with_the_references_probabilities(reference):
    settings = json.loads(str(reference["settings"]))
    assert len(settings) == len(reference["distributions"]) >= 10
    for setting, distributions in zip(settings, reference["distributions"], strict=True):
        config = GenerationConfig(**setting)
        for logits, prompt, wanted in zip(reference["logits"], reference["prompts"], distributions, strict=True):
            chooser = TokenChooser(prompt, config, reference["end_token_ids"])
            scores = chooser.scores(logits)
            found = token_probabilities(scores, config)
            # Which of the tokens that tie at the border of top-p stay is left to the reference's sort.
            is_clear = scores != scores[found > 0].min()
            # float32's softmax underflows where ours does not; what top-k and top-p remove is 0 in both.
            np.testing.assert_array_equal((found > 1e-37)[is_clear], (wanted > 1e-37)[is_clear], err_msg=str(setting))
            # The reference's float32 is off by 8e-6 of a value at most, where a small temperature stretches logits.
            np.testing.assert_allclose(np.sort(found), np.sort(wanted), rtol=2e-5, atol=1e-37, err_msg=str(setting))
            np.testing.assert_allclose(found[is_clear], wanted[is_clear], rtol=2e-5, atol=1e-37, err_msg=str(setting))


def test_the_likeliest_that_top_p_alone_leaves_is_the_greedy_choice_also_where_two_tie():
    logits = np.random.default_rng(1).integers(0, 3, (50, 8)).astype(np.float32)
    assert any(len(np.flatnonzero(row == row.max())) > 1 for row in logits)
    drawn = [chosen(row, temperature=5.0, top_p=1e-9, top_k=1) for row in logits]
    assert drawn == [chosen(row, temperature=0) for row in logits]


def test_the_reference_filters_little_and_much_and_meets_ties(reference):
    kept = (reference["distributions"] > 0).sum(-1)
    assert kept.min() == 1 and (kept == kept.max()).sum() >= 4
    ties = [len(set(row.tolist())) < len(row) / 4 for row in reference["logits"]]
    assert any(ties) and (kept[:, ties.index(True)] > 1).any()
    assert len(set(kept.flatten().tolist())) > 10


def test_temperature_zero_takes_the_likeliest():
    assert chosen([1, 3, 2], temperature=0) == [1]


@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 0.5}, {"temperature": 3.0}, {"top_k": 3}, {"top_p": 0.8}, {"top_k": 4, "top_p": 0.7}],
)
def test_tokens_are_drawn_with_their_probabilities(settings):
    logits, draws = np.array([0.0, 1.0, 2.0, -1.0, 1.5], dtype=np.float32), 4000
    wanted = token_probabilities(logits, config_of(**settings))
    counts = shares(logits, draws, **settings) * draws
    possible = wanted > 0
    assert counts[~possible].sum() == 0
    expected = wanted[possible] * draws
    assert expected.min() > 5 and len(expected) >= 2
    # Chi-square of at most 4 degrees of freedom; one seed in 10,000 would lie above 23.5.
    assert ((counts[possible] - expected) ** 2 / expected).sum() < 23.5


@settings(derandomize=True, deadline=None)
@given(TIED_LOGITS, st.integers(1, 50))
def test_top_k_keeps_the_k_likeliest_and_what_ties_with_the_last(logits, top_k):
    # None of them lies so far below another that its probability would be 0.
    kept = token_probabilities(logits, config_of(top_k=top_k)) > 0
    assert kept.sum() >= min(top_k, len(logits))
    assert (logits[kept] > logits[kept].min()).sum() < top_k
    assert kept.all() or logits[~kept].max() < logits[kept].min()


@settings(derandomize=True, deadline=None)
@given(TIED_LOGITS, st.floats(0, 1, exclude_min=True))
@example(np.zeros(7, dtype=np.float32), 1e-300)
def test_top_p_keeps_the_fewest_likeliest_that_reach_it(logits, top_p):
    every = token_probabilities(logits, config_of())
    kept = token_probabilities(logits, config_of(top_p=top_p)) > 0
    # Sums of 40 float64 differ by 1e-14 with their order.
    assert every[kept].sum() >= top_p - 1e-12
    assert kept.sum() == 1 or every[kept].sum() - every[kept].min() < top_p + 1e-12
    assert kept.all() or every[~kept].max() <= every[kept].min()


@settings(derandomize=True, deadline=None)
@given(TIED_LOGITS, st.integers(0, 50), st.floats(0, 1, exclude_min=True), st.floats(0.01, 100))
def test_what_is_left_keeps_its_proportions_and_adds_up_to_one(logits, top_k, top_p, temperature):
    every = token_probabilities(logits, config_of(temperature=temperature))
    found = token_probabilities(logits, config_of(temperature=temperature, top_k=top_k, top_p=top_p))
    kept = found > 0
    assert kept[logits.argmax()] or logits.max() in logits[kept]
    assert abs(found.sum() - 1) < 1e-12
    np.testing.assert_allclose(found[kept], every[kept] / every[kept].sum(), rtol=1e-12)


def test_top_k_comes_before_top_p():
    # Of the two that top_k leaves, the likelier has 0.625, which reaches 0.6 alone; of all it has 0.5.
    logits = np.log(np.array([0.5, 0.3, 0.2], dtype=np.float32))
    assert np.flatnonzero(token_probabilities(logits, config_of(top_k=2, top_p=0.6))).tolist() == [0]
    assert np.flatnonzero(token_probabilities(logits, config_of(top_p=0.6))).tolist() == [0, 1]


@pytest.mark.parametrize("temperature", [1e-300, 1e-5, 1e300])
def test_extreme_temperatures_still_draw(temperature):
    found = shares([30.0, 10.0, -1e4], 300, temperature=temperature)
    assert found[0] == 1 if temperature < 1 else (found > 0.2).all()


def test_the_penalty_divides_positive_and_multiplies_negative_logits_of_seen_tokens_once():
    logits = np.array([2.0, -2.0, 2.0, -2.0, 0.0], dtype=np.float32)
    found = penalize_repetition(logits, np.array([0, 1, 1, 0, 4]), 2.0)
    assert found.tolist() == [1.0, -4.0, 2.0, -2.0, 0.0] and found.dtype == np.float32
    assert logits.tolist() == [2.0, -2.0, 2.0, -2.0, 0.0]


def test_the_penalty_counts_the_prompt_and_the_tokens_chosen_since():
    # Penalized, a token falls behind the next likeliest that was not seen.
    assert chosen([9.0, 8.0, 7.0, 6.0], 3, prompt=[0], temperature=0, repetition_penalty=4.0) == [1, 2, 3]
    assert chosen([9.0, 8.0, 7.0, 6.0], 2, prompt=[0], temperature=0) == [0, 0]


def test_no_end_token_is_chosen_before_min_new_tokens():
    logits = [5.0, 4.0, 3.0]
    assert chosen(logits, 4, end=(0, 1), min_new_tokens=3, temperature=0) == [2, 2, 2, 0]
    assert 0 not in chosen(logits, 50, end=(0,), min_new_tokens=50)
    assert 0 in chosen(logits, 50, end=(0,))


def test_an_end_token_beyond_the_vocabulary_bars_none():
    assert without_tokens(np.zeros(3, dtype=np.float32), [1, 7]).tolist() == [0, -np.inf, 0]


def test_what_is_drawn_depends_on_seed_and_prompt_alone():
    logits = np.zeros(50)
    first, again = chosen(logits, 20, seed=3), chosen(logits, 20, seed=3)
    assert first == again and len(set(first)) > 5
    assert chosen(logits, 20, seed=4) != first
    assert chosen(logits, 20, prompt=[2, 1], seed=3) != first


def test_logits_that_are_not_numbers_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match="logits are NaN; expected numbers. .* bfloat16 or float32"):
        chosen([0.0, float("nan")], temperature=0)
