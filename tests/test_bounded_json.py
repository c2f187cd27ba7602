from __future__ import annotations

import json
import resource
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddlemix.bounded_json import MAX_DEPTH, SETTINGS, VOCABULARY, JsonLimits, parse_json_object
from paddlemix.files import read_json_object, write_json


def nested(depth):
    return b'{"a": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


REFUSED = {
    "nothing": (b"", ":1: not valid JSON"),
    "a list": (b"[1, 2]", ": a JSON object was expected, not a list."),
    "null": (b"null", ": a JSON object was expected, not a NoneType."),
    "text behind": (b'{"a": 1} {}', ":1: not valid JSON"),
    "the line": (b'{"a": 1,\n"b": 2,\n"c" 3}', ":3: not valid JSON"),
    "one level too deep": (nested(MAX_DEPTH + 1), f": nested more than {MAX_DEPTH} levels deep"),
    "far too deep": (nested(50_000), f": nested more than {MAX_DEPTH} levels deep"),
    "never closed": (b'{"a":' * 50_000, f": nested more than {MAX_DEPTH} levels deep"),
    "too long": (b'{"a": "' + b"x" * SETTINGS.size + b'"}', f"expected at most {SETTINGS.size} of a file of this kind"),
    "too many values": (b'{"a": [' + b"[]," * 300_000 + b"1]}", ": holds 600002 commas and opening brackets"),
    "Latin-1": ('{"a": "\xe9"}'.encode("latin-1"), ": not UTF-8 text: byte 7 is 0xe9."),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), ": not UTF-8 text: byte 0 is 0xff."),
    "NaN": (b'{"a": {"b": [0, NaN]}}', ": `a.b\\[1\\]` is nan; expected a finite number."),
    "an infinity": (b'{"a": -Infinity}', ": `a` is -inf; expected a finite number."),
    "a number beyond all": (b'{"a": 1e999}', ": `a` is inf; expected a finite number."),
    "a number of thousands of digits": (b'{"a": ' + b"9" * 100_000 + b"}", "a whole number of thousands of digits"),
    "a key twice": (b'{"a": {"b": 1, "b": 1}}', ': the key "b" stands twice in one object'),
    "half of a pair": (b'{"a": "\\ud800"}', ": `a` holds half of a surrogate pair"),
    "half of a pair as a key": (b'{"a": {"\\udc00x": 1}}', "holds half of a surrogate pair"),
    "a key of a megabyte": (b'{"' + b"k" * 2**20 + b'": NaN}', ": `kkk.*` is nan"),
}


@pytest.mark.parametrize(("content", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_object_within_bounds_is_refused_in_a_sentence(tmp_path, content, said):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    with pytest.raises(ValueError, match=f"^{path}.*({said})") as caught:
        read_json_object(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400 + len(str(path))
    assert time.thread_time() - began < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000  # kilobytes


def test_a_huge_file_and_what_is_no_file_are_refused_unread(tmp_path):
    path = tmp_path / "config.json"
    with open(path, "wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(ValueError, match=f"^{path}: {2**40} bytes; expected at most"):
        read_json_object(path)
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(ValueError, match=r"folder\.json is a folder; expected a file"):
        read_json_object(tmp_path / "folder.json")


def test_a_byte_order_mark_the_deepest_level_and_the_largest_numbers_are_read():
    assert parse_json_object(b'\xef\xbb\xbf{"a": "\\ud83d\\ude00"}', "x") == {"a": "\U0001f600"}
    assert parse_json_object(nested(MAX_DEPTH), "x")
    assert parse_json_object(b'{"a": 1e308, "b": ' + b"9" * 4000 + b"}", "x")["a"] == 1e308


def test_larger_kinds_of_files_have_larger_bounds():
    content = json.dumps({"vocab": {f"t{number}": number for number in range(400_000)}}).encode()
    with pytest.raises(ValueError, match="expected at most"):
        parse_json_object(content, "x")
    assert len(parse_json_object(content, "x", VOCABULARY)["vocab"]) == 400_000
    assert len(parse_json_object(content, "x", VOCABULARY)["vocab"]) == 400_000


def test_what_cannot_be_read_is_not_written(tmp_path):
    for value in ("\ud800", float("nan")):
        with pytest.raises(ValueError):
            write_json(tmp_path / "a.json", {"a": value})
    assert not list(tmp_path.iterdir())


DOCUMENTS = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda one: st.lists(one, max_size=4) | st.dictionaries(st.text(max_size=5), one, max_size=4),
        max_leaves=20,
    ),
)


@settings(max_examples=200, deadline=None)
@given(document=DOCUMENTS, in_ascii=st.booleans(), indent=st.sampled_from([None, 2]))
def test_every_ordinary_document_is_read_as_python_reads_it(document, in_ascii, indent):
    content = json.dumps(document, ensure_ascii=in_ascii, indent=indent).encode()
    assert parse_json_object(content, "x") == json.loads(content)


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=60) | st.text('{}[]",:0-eE.NaInfity\\ud8\n', max_size=60).map(str.encode))
def test_any_bytes_are_an_object_or_refused_by_name(content):
    try:
        document = parse_json_object(content, "config.json", JsonLimits(50, 10))
    except ValueError as error:
        document, said = {}, str(error)
    else:
        said = "config.json"
    assert said.startswith("config.json") and "\n" not in said
    assert json.loads(json.dumps(document, allow_nan=False)) == document
