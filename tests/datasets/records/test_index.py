from __future__ import annotations

import json
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddlemix.datasets.records import index as record_index
from paddlemix.datasets.records.index import index_lines, index_list

TEXTS = st.text('ab"\\[]{},:\n 图\u2028', max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
CHUNKS = st.sampled_from([1, 2, 3, 7, 64, 1 << 22])


def items(content):
    return [json.loads(content[first:last]) for first, last in index_list(content).tolist()]


@settings(deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=6), CHUNKS, st.booleans(), st.sampled_from([None, 1]), st.booleans())
def test_items_of_a_list_are_found_wherever_chunks_end(values, chunk, ascii_only, indent, has_mark):
    text = json.dumps(values, ensure_ascii=ascii_only, indent=indent).encode()
    with patch.object(record_index, "_CHUNK", chunk):
        assert items(b"\xef\xbb\xbf\n" + text + b" \r\n" if has_mark else text) == values


@settings(deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=4), CHUNKS, st.data())
def test_a_list_that_is_cut_off_is_no_list(values, chunk, data):
    text = json.dumps(values).encode()
    with patch.object(record_index, "_CHUNK", chunk):
        assert index_list(text[: data.draw(st.integers(0, len(text) - 1))]) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1]}',
        "3",
        '"[1]"',
        "[1]]",
        "[1] [2]",
        "[1}",
        '[{"a": 1]',
        "[1,]",
        "[,1]",
        "[1 2]",
        "[nan]",
        "[1",
        "]",
        '["\\"]',
        "",
    ],
)
def test_what_is_not_one_well_formed_list_is_left_to_a_parser(text):
    assert index_list(text.encode()) is None


@pytest.mark.parametrize("chunk", [1, 5, 1 << 22])
def test_lines_keep_their_numbers_and_blank_ones_are_passed_over(monkeypatch, chunk):
    monkeypatch.setattr(record_index, "_CHUNK", chunk)
    content = '\ufeff{"a": 1}\r\n\n  \r\n{"b": "图\u2028"}\n{"c": 3}'.encode()
    found = [(content[first:last].strip().decode(), line) for first, last, line in index_lines(content).tolist()]
    assert found == [('{"a": 1}', 1), ('{"b": "图\u2028"}', 4), ('{"c": 3}', 5)]
