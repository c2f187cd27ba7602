from __future__ import annotations

import csv
import gzip
import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddlemix.conversation import RecordError
from paddlemix.datasets.records.indexed_file import open_records
from paddlemix.datasets.records.stores import csv_store


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PADDLEMIX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def read(tmp_path):
    def read(content, name="a.csv"):
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return list(open_records(str(tmp_path / name)))

    return read


ROWS = [{"image": "a.jpg", "caption": 'A "red"\nbox, 图'}, {"image": "b.jpg", "caption": "\u2028x"}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.tsv", "\t"), ("a.csv.gz", ",")])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_rows_are_read_by_the_names_of_their_columns(read, name, delimiter, newline, encoding, quoting):
    table = io.StringIO()
    writer = csv.DictWriter(table, ["image", "caption"], delimiter=delimiter, lineterminator=newline, quoting=quoting)
    writer.writeheader()
    writer.writerows(ROWS)
    content = table.getvalue().encode(encoding)
    assert read(gzip.compress(content) if name.endswith("gz") else content, name) == ROWS


@pytest.mark.parametrize("content", ["a,b\r1,2\r3,4\r", "a,b\n\n1,2\n\n\n3,4", "a,b\r\n1,2\r\n3,4\r\n\r\n"])
def test_other_ends_of_lines_and_blank_lines_are_read(read, content):
    assert read(content) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("3", "3"),
        ("true", "true"),
        ('"[""a.jpg"", 1]"', ["a.jpg", 1]),
        ('"{""a"": {""b"": null}}"', {"a": {"b": None}}),
        ("[unused] text", "[unused] text"),
        ("{x", "{x"),
        (" x ", " x "),
    ],
)
def test_a_cell_is_text_unless_it_is_a_list_or_an_object_of_json(read, cell, value):
    assert read(f"a,b\n{cell},\n") == [{"a": value}]


def test_empty_cells_and_columns_without_a_name_are_no_keys(read):
    assert read(",a,b\n0,,x\n1,y,\n") == [{"b": "x"}, {"a": "y"}]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("2", "the row at line 3 has 1 cells, the first line 2 names"),
        (
            "2,3,4",
            "the row at line 3 has 3 cells, the first line 2 names; expected as many, and cells that hold a comma",
        ),
        ('"2,3', "line 3 is no row of a table: unexpected end of data"),
        ('"2"x,3', "line 3 is no row of a table: "),
        ("2,\"['a', 'b']\"", "`b` is written in Python's own form"),
        ("2,\"[{'from': 'human'}]\"", "`b` is written in Python's own form"),
        ('2,"{""x"": 1, ""x"": 2}"', "key `x` comes twice in an object of `b`"),
        (b"2,caf\xe9", "not UTF-8 at line 3, it looks like Windows-1252"),
    ],
)
def test_one_bad_row_does_not_hide_the_others(read, row, problem):
    row = row if isinstance(row, bytes) else row.encode()
    first, bad, last = read(b"a,b\n1,x\n" + row + b'\n5,"y"\n')
    assert (first, last) == ({"a": "1", "b": "x"}, {"a": "5", "b": "y"})
    assert isinstance(bad, RecordError) and bad.source.index == 1 and problem in bad.problem


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "the file is empty"),
        ("a,b\n", "the table has no row below the names of its columns"),
        ("a,a\n1,2\n", "column `a` comes twice in the first line"),
        (",\n1,2\n", "no column is named in the first line"),
        ("a;b\n1;2\n", "seems to separate cells by a semicolon; expected a comma, as the file's ending says"),
        ("a\tb\n1\t2\n", "seems to separate cells by a tab; expected a comma"),
        ("a,b\n1,2\n".encode("utf-16"), "it looks like UTF-16; save the file as UTF-8"),
        ("图,b\n一个,2\n".encode("gbk"), "it looks like GBK; save the file as UTF-8"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_name(read, tmp_path, content, problem):
    with pytest.raises(ValueError) as caught:
        read(content)
    assert str(caught.value).startswith(f"{tmp_path / 'a.csv'}: ") and problem in str(caught.value)


def test_quotes_that_are_never_closed_make_bad_rows_of_their_own(read):
    entries = read("a,b\n" + '"x\n1,2\n""y\n1,2\n' * 300 + "1,2\n")
    good = [entry for entry in entries if not isinstance(entry, RecordError)]
    assert good == [{"a": "1", "b": "2"}] * 601 and len(entries) == 1201


def test_a_line_that_is_longer_than_any_row_is_refused(read, monkeypatch):
    monkeypatch.setattr(csv_store, "_LONGEST", 1 << 20)
    with pytest.raises(ValueError, match="line 2 is longer than 1 MiB"):
        read("a,b\n" + "x" * (1 << 21))


@given(st.binary(max_size=60) | st.text('a",\n\r\t', max_size=60).map(str.encode))
def test_whatever_the_bytes_are_every_row_is_read_or_refused(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("csv") / "a.csv"
    file.write_bytes(content)
    try:
        records = open_records(str(file))
    except ValueError as error:
        assert str(error).startswith(f"{file}: ")  # noqa: PT017
        return
    assert len(list(records)) == len(records) > 0


def test_a_million_columns_are_refused_at_once(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(",".join(map(str, range(500_000))) + "\n1\n")
    start = time.process_time()
    with pytest.raises(ValueError, match=r"a\.csv: the first line names 500,000 columns; expected at most 100,000"):
        open_records(str(path))
    assert time.process_time() - start < 2
