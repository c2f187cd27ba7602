from __future__ import annotations

import json
import re
from contextlib import suppress
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddlemix.datasets.records.json_text import structure
from paddlemix.datasets.records.json_text.items import Items, NotClosedError
from paddlemix.datasets.records.json_text.lines import start_of_text

TEXTS = st.text('ab"\\[]{},:\n 图\u2028', max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
CHUNKS = st.sampled_from([1, 2, 3, 7, 64, 1 << 22])
GOOD = ['{"id": 0, "said": [{"id": 7}, "a, [b"]}', '{"id": 1}', '{"id": 2, "x": "}"}', '{"id": 3}']


def chunks_of(size):
    return patch.multiple(structure, _FIRST_CHUNK=size, _LARGEST_CHUNK=size)


def found(text, level=1):
    content = text if isinstance(text, bytes) else text.encode()
    return [
        (content[first:last], line)
        for first, last, line in Items(content, level, start_of_text(content)).find().tolist()
    ]


def good(text, level=1):
    return [json.loads(item) for item, line in found(text, level) if not line]


def bad(text, level=1):
    return [(item.decode().strip(), line) for item, line in found(text, level) if line]


@settings(deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=6), CHUNKS, st.booleans(), st.sampled_from([None, 1]), st.booleans())
def test_items_of_a_list_are_found_wherever_chunks_end(values, chunk, ascii_only, indent, has_mark):
    text = json.dumps(values, ensure_ascii=ascii_only, indent=indent).encode()
    with chunks_of(chunk):
        assert good(b"\xef\xbb\xbf\n" + text + b" \r\n" if has_mark else text) == values


@settings(deadline=None)
@given(
    st.lists(st.dictionaries(TEXTS, VALUES, max_size=3), min_size=1, max_size=6), CHUNKS, st.sampled_from([None, 1]),
    st.sampled_from(["\n", "\r", "", ",\n", " \r\n\r\n"]),
)  # fmt: skip
def test_values_that_follow_one_another_are_found(values, chunk, indent, between):
    text = between.join(json.dumps(value, indent=indent) for value in values) + between
    with chunks_of(chunk):
        assert good(text, level=0) == values


@settings(deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=4), CHUNKS, st.data())
def test_a_list_that_is_cut_off_is_refused_or_has_a_bad_record(values, chunk, data):
    text = json.dumps(values).encode()
    cut = text[: data.draw(st.integers(1, len(text) - 1))]
    with chunks_of(chunk), suppress(NotClosedError):
        assert bad(cut)


@pytest.mark.parametrize(
    "broken",
    [
        '{"id": 9, "x": NaN}',
        '{"id": 9, "x": }',
        '{"id": 9, "x": [}',
        '{"id": 9, "x": ]}',
        '{"id": 9, "x": 1}}',
        '{"id": 9, "x": 1',
        '{"id": 9, "x": "a}',
        '{"id": 9, "x": a"}',
        '{"id": 9, "x": {"id": 8}',
        '{"id": 9, "x": "\\ud83d"}',
        "x",
        "",
    ],
)
@pytest.mark.parametrize("place", [1, 2, 3, 4])
@pytest.mark.parametrize("separator", [",", ",\n ", " ,\r\n"])
def test_a_broken_item_does_not_take_the_others_with_it(broken, place, separator):
    if not broken and place == len(GOOD):
        return  # a comma behind the last item
    text = f"[{separator.join([*GOOD[:place], broken, *GOOD[place:]])}]"
    assert good(text) == [json.loads(item) for item in GOOD]
    assert len(bad(text)) == 1


@pytest.mark.parametrize("broken", ['{"id": 9,\n "x": [}', '{"id": 9,\n "x": "a}', '{"id": 9,\n "x": ]}'])
@pytest.mark.parametrize("place", [0, 1, 4])
def test_a_broken_value_does_not_take_those_that_follow_it(broken, place):
    text = "\n".join([*GOOD[:place], broken, *GOOD[place:]])
    assert good(text, level=0) == [json.loads(item) for item in GOOD]
    assert bad(text, level=0)[0][1] == place + 1


def test_two_quotes_that_are_missing_hide_only_their_own_records():
    text = '[{"id": 0},\n{"id": 1, "x": "a},\n{"id": 2, "x": "b"},\n{"id": 3, "x": c"},\n{"id": 4}]'
    assert good(text) == [{"id": 0}, {"id": 2, "x": "b"}, {"id": 4}]
    assert [line for _, line in bad(text)] == [1, 3]


def test_what_stands_behind_a_list_is_a_bad_record():
    assert bad('[{"id": 1}] x') == [("x", 1)]
    assert good('[{"id": 1}], {"id": 2}]') == [{"id": 1}, {"id": 2}]


@pytest.mark.parametrize(("text", "count"), [("[]", 0), ("[ \n]", 0), ('[{"id": 1},]', 1), ('[{"id": 1} , \n]', 1)])
def test_a_comma_behind_the_last_item_is_passed_over(text, count):
    assert len(found(text)) == count


def test_many_items_that_never_close_cost_no_more_than_the_walk_may():
    text = "[" + ",\n".join(['{"id": [}'] * 3000) + "]"
    items = Items(text.encode(), 1, 0)
    items._budget = 50 * len(text)
    spans = items.find()
    assert items._budget > -4 * (1 << 22)
    assert 50 <= len(spans) <= 3000 and re.search(rb"\[}\s*$", text.encode()[spans[-1, 0] : spans[-1, 1]])
