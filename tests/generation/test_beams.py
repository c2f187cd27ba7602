"""Single steps of a search; whole searches are compared with the reference in test_generate.py."""

from __future__ import annotations

import numpy as np
import pytest

from paddlemix.generation import GenerationConfig
from paddlemix.generation.beams import Beam, BeamSearch

END, WORDS = 9, 10
FLAT = np.zeros((2, WORDS), dtype=np.float32)  # every token has a tenth of the probability


def search(*open_beams, is_over=None, **settings):
    config = GenerationConfig(**{"num_beams": 2, "max_new_tokens": 5, **settings})
    made = BeamSearch(np.array([1, 2]), config, {END}, END if config.stop_words_ids else None, is_over)
    made.open = list(open_beams) or made.open
    return made


def test_the_likeliest_tokens_go_on_from_whichever_beam():
    made = search(Beam((3,), -1.0), Beam((4,), -2.0))
    logits = FLAT.copy()
    logits[0, 5], logits[1, 6] = 9, 9
    assert made.advance(logits) == [0, 1]
    assert [beam.tokens for beam in made.open] == [(3, 5), (4, 6)]
    assert made.open[0].score == pytest.approx(-1 - np.log(1 + 9 * np.exp(-9)), rel=1e-6)


def test_an_end_token_makes_a_beam_whole_only_among_the_best():
    made = search(Beam((3,), -1.0), Beam((4,), -2.0))
    logits = FLAT.copy()
    logits[:, END] = 9
    made.advance(logits)
    assert len(made.open) == 2 and not any(END in beam.tokens for beam in made.open)
    assert made.answer() == Beam((3,), made.answer().score, end=END)


def test_a_beam_may_be_over_without_an_end_token_and_keeps_its_last_token():
    made = search(Beam((3,), -1.0), Beam((4,), -2.0), is_over=lambda prompt, answer: [*prompt, *answer][-2:] == [3, 5])
    logits = FLAT.copy()
    logits[:, 5] = 9
    made.advance(logits)
    assert (3, 5) not in [beam.tokens for beam in made.open] and len(made.open) == 2
    assert (made.answer().tokens, made.answer().end) == ((3, 5), None)


def test_what_is_whole_does_not_keep_a_search_going():
    made = search(Beam((3, 4), -2.0), Beam((5, 6), -2.0))
    made._whole = [(-0.5, Beam((7, 7), -1.5, END)), (-0.7, Beam((8, 8), -2.1, END))]
    logits = FLAT.copy()
    logits[:, END] = 9  # the best candidates end with -0.67, the best open ones have -3.7
    made.advance(logits)
    assert made.is_done


def test_stop_words_end_a_beam_at_no_cost():
    made = search(Beam((3, 4), -1.0), Beam((5, 6), -0.5), stop_words_ids=[[3, 4]])
    assert made.advance(FLAT) == [1, 1]
    assert made.answer() == Beam((3, 4), -1.0, end=END)


def test_stop_words_give_a_beam_no_advantage():
    """The original adds 32768 to such a beam's score, so that the first beam to meet stop words always wins."""
    made = search(Beam((3, 4), -50.0), Beam((5, 6), -0.5), stop_words_ids=[[3, 4]])
    assert made.advance(FLAT) == [1, 1]
    assert made.answer().tokens[:2] == (5, 6)


def test_stop_words_reach_back_into_the_prompt():
    made = search(stop_words_ids=[[1, 2]])
    assert made.advance(FLAT[:1]) == [] and made.is_done
    assert made.answer() == Beam((), 0.0, end=END)


@pytest.mark.parametrize(
    ("settings", "is_done"),
    [
        # The worse whole one has -1. The best open one has -4.3: -1.4 at its length of 3, -0.9 at the longest, 5.
        ({"early_stopping": True}, True),
        ({}, True),
        ({"early_stopping": "never"}, False),
        ({"early_stopping": "never", "length_penalty": -1.0}, True),
    ],
)
def test_a_search_ends_once_nothing_open_can_win(settings, is_done):
    made = search(Beam((3, 4), -2.0), Beam((5, 6), -2.0), **settings)
    made._whole = [(-0.5, Beam((7, 7), -1.5, END)), (-1.0, Beam((8, 8), -3.0, END))]
    made.advance(FLAT)
    assert made.is_done == is_done and len(made.open) == 2


def test_a_logit_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="the model's logits are NaN"):
        search().advance(np.full((1, WORDS), np.nan, dtype=np.float32))
