from __future__ import annotations

import base64
import datetime
import decimal
import random
import resource
import sys

import numpy as np
import pytest

from paddlemix.conversation import RecordError
from paddlemix.datasets.records.indexed_file import open_records
from paddlemix.datasets.records.stores import parquet_store

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 8
PNG_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()


@pytest.fixture
def write(tmp_path):
    def write(columns, **options):
        table = columns if isinstance(columns, pyarrow.Table) else pyarrow.table(columns)
        parquet.write_table(table, tmp_path / "a.parquet", **options)
        return str(tmp_path / "a.parquet")

    return write


@pytest.mark.parametrize("kept", [1 << 28, 1])
def test_rows_of_many_groups_are_read_in_any_order(write, monkeypatch, kept):
    monkeypatch.setattr(parquet_store, "_KEPT_BYTES", kept)
    records = open_records(write({"n": list(range(25)), "text": [f"图{n}" for n in range(25)]}, row_group_size=10))
    assert list(records) == [{"n": n, "text": f"图{n}"} for n in range(25)]
    rows = [random.Random(0).randrange(25) for _ in range(60)]
    assert [(entry["n"], source.index) for entry, source in records.located(rows)] == [(row, row) for row in rows]


def test_two_files_that_are_read_in_turns_do_not_mix(write, tmp_path):
    first = write({"n": [1, 2]})
    second = str(tmp_path / "b.parquet")
    parquet.write_table(pyarrow.table({"n": [3, 4]}), second)
    one, two = open_records(first), open_records(second)
    assert [next(records.located([row]))[0]["n"] for row in (0, 1) for records in (one, two)] == [1, 3, 2, 4]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ([{"role": "user", "content": "图"}], [{"role": "user", "content": "图"}]),
        ({"bytes": PNG, "path": "a.png"}, PNG_URL),
        ([{"bytes": PNG, "path": None}, {"bytes": None, "path": "b.jpg"}], [PNG_URL, "b.jpg"]),
        (PNG, PNG_URL),
        ("图".encode(), "图"),
        (b"\xff\x00", "data:application/octet-stream;base64,/wA="),
        ({"a": 1, "b": None}, {"a": 1}),
        ([1, None, 2], [1, None, 2]),
        (datetime.datetime(2024, 2, 3, 4, 5), "2024-02-03T04:05:00"),
        (datetime.date(2024, 2, 3), "2024-02-03"),
        (datetime.timedelta(minutes=2), 120.0),
        (decimal.Decimal("2.50"), 2.5),
        (decimal.Decimal("2.00"), 2),
        (np.float32(0.5), 0.5),
        (True, True),
        ([[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 4.0]]),
    ],
    ids=str,
)
def test_values_come_as_json_would_have_them(write, value, plain):
    (record,) = open_records(write({"a": [value]}))
    assert record == {"a": plain} and type(record["a"]) is type(plain)


def test_what_is_null_is_no_key_and_neither_is_the_number_of_a_row(write):
    table = pyarrow.table({"a": ["x", None], "b": [None, 1], "__index_level_0__": [0, 1]})
    assert list(open_records(write(table))) == [{"a": "x"}, {"b": 1}]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([1.0, float("nan"), 2.0], "`a` is nan, for which JSON has no word"),
        ([[1.0], [1.0, float("inf")], [2.0]], "`a[1]` is inf"),
        (pyarrow.array([0, 2**62, 0], pyarrow.timestamp("ms")), ""),
    ],
)
def test_a_value_without_words_makes_one_bad_record(write, values, problem):
    first, bad, last = open_records(write({"a": values}))
    assert isinstance(first, dict) and isinstance(last, dict)
    assert isinstance(bad, RecordError) and bad.source.index == 1 and problem in bad.problem


@pytest.mark.parametrize("cut", [0, 3, 8, 100, -1, -8, -9, -40])
def test_a_broken_file_is_refused_by_name(write, tmp_path, cut):
    path = write({"a": ["x" * 50, "y"]})
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content[:cut])
    with pytest.raises(ValueError) as caught:
        open_records(path)
    assert str(caught.value).startswith(f"{path}: the file is no Parquet file, or broken: ")
    assert "\n" not in str(caught.value)


def test_a_file_whose_bytes_are_changed_ends_in_words_whatever_they_are(write, tmp_path):
    path = write({"a": [str(n) * 9 for n in range(40)], "b": [[{"c": n}] for n in range(40)]}, row_group_size=8)
    content = (tmp_path / "a.parquet").read_bytes()
    chance = random.Random(0)
    outcomes = set()
    for _ in range(200):
        changed = bytearray(content)
        for _ in range(chance.choice((1, 1, 5))):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        (tmp_path / "a.parquet").write_bytes(changed)
        try:
            entries = list(open_records(path))
        except ValueError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)  # noqa: PT017
            outcomes.add("refused")
            continue
        outcomes |= {type(entry) for entry in entries}
    assert outcomes == {"refused", dict, RecordError}


def test_a_file_that_claims_more_rows_than_it_could_hold_is_refused(write, monkeypatch):
    monkeypatch.setattr(parquet_store, "_MOST_ROWS_A_BYTE", 1)
    path = write({"a": pyarrow.array(np.zeros(100_000, dtype=np.int8))})
    with pytest.raises(ValueError, match="says that it has 100,000 rows"):
        open_records(path)


def test_a_table_without_rows_is_refused(write):
    with pytest.raises(ValueError, match="has 0 rows; expected at least one record"):
        open_records(write({"a": pyarrow.array([], pyarrow.string())}))


def test_without_pyarrow_the_package_is_named(write, monkeypatch):
    path = write({"a": ["x"]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match='pyarrow, which is not installed: pip install "pyarrow<21"'):
        open_records(path)


class TestBombs:
    """Files that name one long text so often that all of it written out would fill the memory."""

    TEXT = "x" * 1_000_000

    def repeated(self, tmp_path, in_lists, each=1):
        array = pyarrow.DictionaryArray.from_arrays(np.zeros(20_000, np.int32), pyarrow.array([self.TEXT]))
        if in_lists:
            array = pyarrow.ListArray.from_arrays(np.arange(0, 20_001, each, dtype=np.int32), array)
        table = pyarrow.table({"a": array})
        with parquet.ParquetWriter(tmp_path / "a.parquet", table.schema, store_schema=False) as writer:
            writer.write_table(table)
        assert parquet.ParquetFile(tmp_path / "a.parquet").schema_arrow.types[0] in (
            pyarrow.string(),
            pyarrow.list_(pyarrow.field("element", pyarrow.string())),
        )
        return str(tmp_path / "a.parquet")

    @pytest.mark.parametrize("in_lists", [False, True])
    def test_a_text_that_all_rows_name_is_in_memory_once(self, tmp_path, in_lists):
        records = open_records(self.repeated(tmp_path, in_lists))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        values = [entry["a"] for entry, _ in records.located([0, 19_999, 7])]
        assert values == [[self.TEXT] if in_lists else self.TEXT] * 3
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # in KB

    def test_a_row_that_is_too_large_written_out_is_told(self, tmp_path):
        records = open_records(self.repeated(tmp_path, in_lists=True, each=1000))
        ((error, _),) = records.located([3])
        assert isinstance(error, RecordError)
        assert error.problem.startswith("the record takes 1,000,000,000 bytes; expected at most")

    def test_a_file_that_holds_far_more_than_its_size_is_refused(self, write, tmp_path, monkeypatch):
        path = write({"n": np.zeros(20_000, dtype=np.int64)})
        assert len(open_records(path)) == 20_000
        monkeypatch.setattr(parquet_store, "_ALWAYS_ALLOWED", 1 << 16)
        with pytest.raises(ValueError, match=r"a\.parquet: .*160,000 bytes, more than 200 times.*`unpack_limit`"):
            open_records(path)
        assert len(open_records(path, 1 << 24)) == 20_000
        with pytest.raises(ValueError, match="more than 150,000; set `unpack_limit`"):
            open_records(path, 150_000)


def test_a_column_that_is_not_utf_8_is_named_with_its_record(tmp_path):
    offsets = pyarrow.array([0, 3, 6], pyarrow.int32()).buffers()[1]
    texts = pyarrow.Array.from_buffers(pyarrow.string(), 2, [None, offsets, pyarrow.py_buffer(b"abca\xff\x80")])
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"image": ["a.png"] * 2, "caption": texts}), path)
    good, bad = open_records(str(path))
    assert good == {"image": "a.png", "caption": "abc"} and isinstance(bad, RecordError) and bad.source.index == 1
    assert bad.problem == "column `caption` is not UTF-8 (invalid start byte at byte 1 of a text); write it as UTF-8"
