from __future__ import annotations

import functools

import pytest

from paddlemix.datasets.records.json_files import describe


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "null"),
        (True, "true"),
        (1.5, "the number 1.5"),
        ("图", 'the text "图"'),
        ([1, "b"], 'the list [1,"b"]'),
        ({"a": None}, 'the object {"a":null}'),
        ("x" * 100, f'the text "{"x" * 59}...'),
        (
            functools.reduce(lambda inner, _: [inner], range(300), 1),
            "a list that is nested too deep, or too long, to show",
        ),
        (10**30, "a number that is nested too deep, or too long, to show"),
    ],
)
def test_values_are_described_in_the_words_of_json(value, words):
    assert describe(value) == words
