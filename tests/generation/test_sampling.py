from __future__ import annotations

import numpy as np
import pytest

from paddlemix.generation.sampling import GenerationConfig, choose_tokens


def draw(logits, rows=1, seed=0, **settings):
    """How often each token is drawn for `logits`, in `rows` rows."""
    config = GenerationConfig(**{"temperature": 1.0, **settings})
    batch = np.tile(np.array(logits, dtype=np.float32), (rows, 1))
    tokens = choose_tokens(batch, config, np.random.default_rng(seed))
    assert tokens.shape == (rows,) and tokens.dtype == np.int64
    return np.bincount(tokens, minlength=len(logits)) / rows


def test_temperature_zero_takes_each_rows_likeliest():
    logits = np.array([[1, 3, 2], [9, 3, 2], [0, 0, 1]], dtype=np.float32)
    assert choose_tokens(logits, GenerationConfig(), np.random.default_rng(0)).tolist() == [1, 0, 2]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_are_drawn_with_the_probabilities_of_the_scaled_logits(temperature):
    logits = np.array([0.0, 1.0, 2.0, -1.0])
    wanted = np.exp(logits / temperature)
    # 4000 draws: three standard errors are 0.024 at most.
    np.testing.assert_allclose(draw(logits, 4000, temperature=temperature), wanted / wanted.sum(), atol=0.03)


def test_top_k_draws_among_so_many_of_the_likeliest():
    shares = draw([1.0, 1.2, 0.9, 1.1], 500, top_k=2)
    assert (shares > 0).tolist() == [False, True, False, True]


def test_top_k_of_one_is_the_likeliest_also_where_two_tie():
    logits = np.random.default_rng(1).integers(0, 3, (50, 8)).astype(np.float32)
    assert any(len(np.flatnonzero(row == row.max())) > 1 for row in logits)
    drawn = choose_tokens(logits, GenerationConfig(temperature=5.0, top_k=1), np.random.default_rng(0))
    greedy = choose_tokens(logits, GenerationConfig(), np.random.default_rng(0))
    np.testing.assert_array_equal(drawn, greedy)


def test_top_k_above_the_vocabulary_is_all_of_it():
    assert (draw([0.0, 0.0, 0.0], 200, top_k=99) > 0.1).all()


@pytest.mark.parametrize(("top_p", "kept"), [(0.4, 1), (0.5, 1), (0.55, 2), (0.8, 2), (0.95, 3), (1.0, 4)])
def test_top_p_draws_among_the_likeliest_that_together_reach_it(top_p, kept):
    logits = np.log(np.array([0.15, 0.5, 0.05, 0.3]))
    likeliest = [1, 3, 0, 2][:kept]
    assert np.flatnonzero(draw(logits, 1000, top_p=top_p)).tolist() == sorted(likeliest)


def test_top_k_comes_before_top_p():
    # Of the two that top_k leaves, the likelier has 0.625, which reaches 0.6 alone; of all it has 0.5.
    logits = np.log(np.array([0.5, 0.3, 0.2]))
    assert np.flatnonzero(draw(logits, 300, top_k=2, top_p=0.6)).tolist() == [0]
    assert np.flatnonzero(draw(logits, 300, top_p=0.6)).tolist() == [0, 1]


@pytest.mark.parametrize("temperature", [1e-300, 1e-5, 1e300])
def test_extreme_temperatures_still_draw(temperature):
    shares = draw([30.0, 10.0, -1e4], 300, temperature=temperature)
    assert shares[0] == 1 if temperature < 1 else (shares > 0.2).all()


def test_the_same_seed_draws_the_same_and_another_seed_something_else():
    logits = np.zeros((20, 50), dtype=np.float32)
    config = GenerationConfig(temperature=1.0)
    first, again, other = (choose_tokens(logits, config, np.random.default_rng(seed)).tolist() for seed in (3, 3, 4))
    assert first == again != other
    assert len(set(first)) > 5


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_new_tokens": 0}, "`max_new_tokens` is 0; expected at least 1."),
        ({"temperature": -0.5}, "`temperature` is -0.5; expected at least 0."),
        ({"temperature": float("nan")}, "`temperature` is nan; expected at least 0."),
        ({"top_k": -1}, "`top_k` is -1; expected at least 0."),
        ({"top_p": 0}, "`top_p` is 0; expected above 0 and at most 1."),
        ({"top_p": 1.1}, "`top_p` is 1.1; expected above 0 and at most 1."),
        ({"seed": -1}, "`seed` is -1; expected at least 0."),
    ],
)
def test_settings_out_of_range_are_refused_in_a_sentence(settings, said):
    with pytest.raises(ValueError) as caught:
        GenerationConfig(**settings)
    assert str(caught.value) == said
