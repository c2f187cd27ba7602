from __future__ import annotations

import functools
import gzip
import re
from pathlib import Path

import pytest

from paddlemix.conversation import RecordError
from paddlemix.datasets.records.json_files import describe, read_records


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", '[{"a": 1}, {"b": "图"}]', [{"a": 1}, {"b": "图"}]),
        ("记录.json", '[{"键": "值"}]', [{"键": "值"}]),
        ("a.json", b'\xef\xbb\xbf[{"a": 1}]', [{"a": 1}]),
        ("a.json", '{"images": [], "annotations": []}', {"images": [], "annotations": []}),
        ("a.jsonl", '{"a": 1}\n{"b": "图"}\n', [{"a": 1}, {"b": "图"}]),
        ("a.jsonl", '{"a": 1}\r\n\r\n{"b": 2}', [{"a": 1}, {"b": 2}]),
        ("a.jsonl", '{"a": "line\u2028separator"}', [{"a": "line\u2028separator"}]),
        ("a.json.gz", gzip.compress(b'[{"a": 1}]', mtime=0), [{"a": 1}]),
        ("a.jsonl.gz", gzip.compress(b'\xef\xbb\xbf{"a": 1}\n{"b": 2}\n', mtime=0), [{"a": 1}, {"b": 2}]),
    ],
)
def test_records_come_back_as_they_were_written(tmp_path, name, content, expected):
    assert read_records(write(tmp_path, name, content)) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '[{"a": 1},\n {"b": x}]', "line 2, column 8"),
        ("a.json", '["图",\n "图" x]', "line 2, column 6"),
        ("a.json", '[{"a": 1}', "malformed JSON at line 1"),
        ("a.json", b'[{"a":\n "\xe5\x9b\xbe\xff"}]', "not UTF-8 at line 2, column 4"),
        ("a.json", "", "the file is empty"),
        ("a.json", b"\xef\xbb\xbf \n", "the file is empty"),
        ("a.jsonl", "\n\n", "the file is empty"),
        ("a.json", "[]", "the list is empty"),
        ("a.json", '"text"', 'the file holds the text "text"'),
        ("a.json", "3", "the file holds the number 3"),
        ("a.json.gz", '[{"a": 1}]', "no gzip file, or cut off"),
        ("a.json.gz", gzip.compress(b'[{"a": 1}]', mtime=0)[:-9], "no gzip file, or cut off"),
        ("a.gz", gzip.compress(b'[{"a": 1}]', mtime=0), "a record file ends in .json or .jsonl, with or without .gz"),
        ("a.csv", "image,caption", "ends in .json or .jsonl, with or without .gz after it, this one in '.csv'"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name_and_place(tmp_path, name, content, message):
    path = write(tmp_path, name, content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: .*{re.escape(message)}"):
        read_records(path)


@pytest.mark.parametrize("name", ["missing.json", "folder.json"])
def test_what_is_no_file_is_refused_with_the_key_to_correct(tmp_path, name):
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no such record file; correct `data_files`"):
        read_records(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.json", '[{"a": 1}, 7, {"c": 3}]', "the record is the number 7; expected an object"),
        ("a.json", '[{"a": 1}, null, {"c": 3}]', "the record is null; expected an object"),
        ("a.jsonl", '{"a": 1}\n[7]\n{"c": 3}', "the record is the list [7]; expected an object"),
        ("a.jsonl", '{"a": 1}\n\n{"b": }\n{"c": 3}', "malformed JSON at line 3, column 7"),
        ("a.jsonl", b'{"a": 1}\n{"b": "\xff"}\n{"c": 3}', "not UTF-8 at line 2, column 8"),
    ],
)
def test_one_bad_record_does_not_hide_the_others(tmp_path, name, content, problem):
    path = write(tmp_path, name, content)
    first, bad, last = read_records(path)
    assert (first, last) == ({"a": 1}, {"c": 3})
    assert isinstance(bad, RecordError)
    assert problem in str(bad)
    assert (bad.source.file, bad.source.index) == (str(path), 1)


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
