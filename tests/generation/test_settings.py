from __future__ import annotations

import pytest

from paddlemix.generation import GenerationConfig


def test_an_answer_is_greedy_unless_something_else_is_asked_for():
    config = GenerationConfig()
    assert (config.temperature, config.repetition_penalty, config.min_new_tokens) == (0, 1, 0)


COUNT = "a whole number, at least 1 and at most 2147483647."
TEXTS = "a list of texts, none empty, at most 1000 of at most 1000 characters."


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_new_tokens": 0}, f"`max_new_tokens` is 0; expected {COUNT}"),
        (
            {"max_new_tokens": 2.5},
            f"`max_new_tokens` is 2.5; expected {COUNT}",
        ),
        (
            {"max_new_tokens": True},
            f"`max_new_tokens` is True; expected {COUNT}",
        ),
        ({"min_new_tokens": -1}, "`min_new_tokens` is -1; expected a whole number, at least 0 and at most 2147483647."),
        (
            {"max_new_tokens": 4, "min_new_tokens": 5},
            "`min_new_tokens` is 5; expected at most `max_new_tokens`, 4.",
        ),
        ({"temperature": -0.5}, "`temperature` is -0.5; expected a number, at least 0."),
        ({"temperature": float("nan")}, "`temperature` is nan; expected a number, at least 0."),
        ({"temperature": float("inf")}, "`temperature` is inf; expected a number, at least 0."),
        ({"temperature": "0.7"}, "`temperature` is '0.7'; expected a number, at least 0."),
        ({"top_k": -1}, "`top_k` is -1; expected a whole number, at least 0 and at most 2147483647."),
        ({"top_p": 0}, "`top_p` is 0; expected a number above 0 and at most 1."),
        ({"top_p": 1.1}, "`top_p` is 1.1; expected a number above 0 and at most 1."),
        ({"repetition_penalty": 0.0}, "`repetition_penalty` is 0.0; expected a number above 0."),
        ({"seed": -1}, "`seed` is -1; expected a whole number, at least 0."),
        ({"eos_token_ids": 5}, "`eos_token_ids` is 5; expected a list of token ids."),
        ({"stop_token_ids": ["a"]}, "`stop_token_ids` is ['a']; expected a list of token ids."),
        (
            {"stop_strings": "abc"},
            f"`stop_strings` is 'abc'; expected {TEXTS}",
        ),
        (
            {"stop_strings": ["a", ""]},
            f"`stop_strings` is ['a', '']; expected {TEXTS}",
        ),
    ],
)
def test_settings_out_of_range_are_refused_in_a_sentence(settings, said):
    with pytest.raises(ValueError) as caught:
        GenerationConfig(**settings)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    "settings",
    [
        {"stop_strings": ["a"] * 1001},
        {"stop_strings": ["a" * 10**6]},
        {"stop_words_ids": [[1]] * 1001},
        {"stop_words_ids": [[1] * 1001]},
        {"max_new_tokens": 10**12},
    ],
)
def test_what_would_take_any_time_after_each_token_is_refused(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=rf"`{name}` is .{{1,210}}; expected a .* at most"):
        GenerationConfig(**settings)


def test_the_tokenizers_end_tokens_hold_unless_others_are_named_and_stop_tokens_come_on_top():
    assert GenerationConfig().end_token_ids((7, 8)) == {7, 8}
    assert GenerationConfig(stop_token_ids=[3]).end_token_ids((7, 8)) == {3, 7, 8}
    assert GenerationConfig(eos_token_ids=[5]).end_token_ids((7, 8)) == {5}
    assert GenerationConfig(eos_token_ids=[5], stop_token_ids=[3]).end_token_ids((7, 8)) == {3, 5}
    assert GenerationConfig(eos_token_ids=[]).end_token_ids((7, 8)) == set()


def test_two_configs_of_the_same_settings_are_one_key_whether_given_as_lists_or_tuples():
    one = GenerationConfig(eos_token_ids=[1, 2], stop_token_ids=[3], stop_strings=["a"])
    assert {one: "found"}[GenerationConfig(eos_token_ids=(1, 2), stop_token_ids=(3,), stop_strings=("a",))] == "found"
