from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddlemix.datasets.records.selection import select


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(0, 100), st.none() | st.integers(0, 9))
def test_two_parts_of_one_cut_have_all_records_and_none_in_common(count, percent, seed):
    first = select(count, splits=[f":{percent}%"], seed=seed)
    second = select(count, splits=[f"{percent}%:"], seed=seed)
    assert sorted([*first, *second]) == list(range(count))
    assert abs(len(first) - count * percent / 100) <= 0.5


@pytest.mark.parametrize(
    ("values", "rows"),
    [
        ({}, range(10)),
        ({"splits": [":3"]}, range(3)),
        ({"splits": ["3:5", "8:"]}, [3, 4, 8, 9]),
        ({"splits": ["50%:", ":1"]}, [0, 5, 6, 7, 8, 9]),
        ({"splits": ["12:20"]}, []),
        ({"max_samples": 4}, range(4)),
        ({"splits": ["5:"], "max_samples": 2}, [5, 6]),
    ],
)
def test_records_are_chosen_in_the_order_of_the_file(values, rows):
    assert select(10, **values).tolist() == list(rows)


def test_a_seed_spreads_what_is_chosen_over_the_file():
    rows = select(1000, max_samples=100, seed=3)
    assert len(set(rows.tolist())) == 100 and (np.diff(rows) > 0).all()
    assert rows[-1] > 900
    assert (select(1000, max_samples=100, seed=3) == rows).all()
    assert (select(1000, max_samples=100, seed=4) != rows).any()


@pytest.mark.parametrize(
    ("splits", "problem"),
    [
        (["90"], "holds '90'; expected a stretch such as"),
        (["-1:"], "holds '-1:'"),
        (["a:b"], "holds 'a:b'"),
        ([""], "holds ''"),
        (["5:3"], "ends before it begins"),
        (["50%:", "0:6"], "whose stretches overlap"),
    ],
)
def test_a_split_that_makes_no_sense_is_refused(splits, problem):
    with pytest.raises(ValueError, match=re.escape(problem)):
        select(10, splits=splits)
