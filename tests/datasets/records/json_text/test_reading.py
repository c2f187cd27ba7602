from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddlemix.conversation import RecordError, RecordId
from paddlemix.datasets.records.json_text.problems import Start, problem_of
from paddlemix.datasets.records.json_text.reading import read_record, repeated_key

SOURCE = RecordId("a.json", 3)
TEXTS = st.text('ab:"\\ \n', max_size=5)
VALUES = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
)


def problem(text, start=Start()):  # noqa: B008
    content = text.encode("utf-8", "surrogateescape")
    with pytest.raises(orjson.JSONDecodeError) as caught:
        read_record(content, SOURCE)
    return problem_of(caught.value, content, start)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"answer": "one", "answer": "two"}', "answer"),
        ('{"a": {"b": [{"c": 1, "c": 1}]}}', "c"),
        ('{"a" : 1, "a"\n: 2}', "a"),
        ('{"a": ":::", "b": 1, "a": ""}', "a"),
        ('{"a": ":", "a": "\\u003a:"}', "a"),
        ('{"a": 1, "\\u0061": 2}', "a"),
        ('{"": 1, "": 2}', ""),
        ('{"a":' + "[" * 300 + '{"c": 1, "c": 2}' + "]" * 300 + "}", "c"),
    ],
)
def test_a_key_that_comes_twice_makes_a_bad_record(text, key):
    entry = read_record(text.encode(), SOURCE)
    assert isinstance(entry, RecordError)
    assert str(entry) == f"a.json, record 3: key `{key}` comes twice in one object; leave one of the two out"


@given(VALUES, st.booleans(), st.sampled_from([None, 1]), st.sampled_from([(",", ":"), (" , ", " : ")]))
def test_no_key_of_what_was_written_by_json_comes_twice(value, ascii_only, indent, separators):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent, separators=separators).encode()
    assert repeated_key(text, orjson.loads(text)) is None


@given(st.lists(st.tuples(TEXTS, VALUES), max_size=4), st.sampled_from(["{}", '{{"a": {}}}', "[{}]"]))
def test_a_repeated_key_is_found_whatever_else_there_is(pairs, around):
    inner = ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in pairs)
    text = around.replace("{}", "{" + inner + "}").replace("{{", "{").replace("}}}", "}}").encode()
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return
    keys = [key for key, _ in pairs]
    assert (repeated_key(text, value) is None) == (len(set(keys)) == len(keys))


def test_deep_nesting_is_read_and_not_searched_for_ever():
    text = '{"a":' + "[" * 1000 + "]" * 1000 + "}"
    assert isinstance(read_record(text.encode(), SOURCE), dict)


def test_a_byte_order_mark_before_a_record_is_ignored():
    assert read_record(b'\n\xef\xbb\xbf{"a": 1}', SOURCE) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"score": NaN}', "`score` is NaN at line 1, column 11, for which JSON has no word; write a number or null"),
        ('{"a": [0, {"b": -Infinity}]}', "`a[1].b` is -Infinity at line 1, column 18"),
        ('{"a": "NaN", "b":\n NaN}', "`b` is NaN at line 2, column 2"),
        ('{"a": [{"b": "x \\ud83d"}]}', "`a[0].b` holds \\ud83d at line 1, column"),
        ('{"\\ud83d": 1}', "`?` holds \\ud83d at line 1"),
        ('{"a": x}', "malformed JSON at line 1, column 7"),
        ('{"a": 1,}', "malformed JSON at line 1, column 8: trailing comma is not allowed"),
        ("{'a': 1}", "the record is written in Python's own form, with single quotes"),
        ('{"a": 1} {"b": 2}', "malformed JSON at line 1, column 10"),
        (" ", "there is nothing between two commas"),
        ('{"a":\r "图\udcff"}', "not UTF-8 at line 2, column 4, it looks like Windows-1252; save the file as UTF-8"),
    ],
)
def test_what_is_wrong_with_a_text_is_said_with_its_place(text, words):
    assert words in problem(text)


@pytest.mark.parametrize(
    ("start", "place"),
    [
        (Start(), "line 1, column 7"),
        (Start(5, '[{"图": 1}, '.encode()), "line 5, column 18"),
        (Start(5, None, 1000), "byte 1007"),
    ],
)
def test_places_are_counted_from_the_beginning_of_the_file(start, place):
    assert f"malformed JSON at {place}: " in problem('{"a": x}', start)
