"""JSON files, from the file to the records."""

from __future__ import annotations

import gzip
import json
import os
import random
import tracemalloc
from pathlib import Path

import pytest

from paddlemix.conversation import RecordError
from paddlemix.datasets.records import unpacking
from paddlemix.datasets.records.indexed_file import open_records
from paddlemix.datasets.records.json_text import items, shape
from paddlemix.datasets.records.json_text.lines import index_lines
from paddlemix.datasets.records.stores import json_store

CASES = Path(__file__).parents[5] / "shared" / "cases"


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PADDLEMIX_CACHE", str(tmp_path / "cache"))


def write(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("记录.json", '[{"键": "值"}]', [{"键": "值"}]),
        ("a.JSON", b'\xef\xbb\xbf[{"a": 1}]', [{"a": 1}]),
        ("a.json", '{"images": [], "annotations": []}', {"images": [], "annotations": []}),
        ("a.jsonl", '{"a": 1}\r\n\r\n{"b": "图\u2028"}', [{"a": 1}, {"b": "图\u2028"}]),
        ("a.json.gz", gzip.compress(b'[{"a": 1}]', mtime=0), [{"a": 1}]),
        ("a.jsonl.gz", gzip.compress(b'\xef\xbb\xbf{"a": 1}\n{"b": 2}\n', mtime=0), [{"a": 1}, {"b": 2}]),
    ],
)
def test_records_come_back_as_they_were_written(tmp_path, name, content, expected):
    records = open_records(write(tmp_path, name, content))
    assert (records if isinstance(records, dict) else list(records)) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"a": 1', "malformed JSON at line 1"),
        ("a.json", '{"a":\n x}', "malformed JSON at line 2, column 2"),
        ("a.json", '{"a": 1, "b": {"c": 1, "c": 2}}', "key `c` comes twice in one object"),
        ("a.json", "", "the file is empty"),
        ("a.jsonl", "\n\n", "the file is empty"),
        ("a.json.gz", '[{"a": 1}]', "no gzip file, or cut off"),
        ("a.json.gz", gzip.compress(b'[{"a": 1}]', mtime=0)[:-9], "no gzip file, or cut off"),
        ("a.gz", gzip.compress(b'[{"a": 1}]', mtime=0), "a record file ends in .json"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path, name, content, message):
    path = write(tmp_path, name, content)
    with pytest.raises(ValueError) as caught:
        open_records(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)


def test_a_file_that_unpacks_to_far_more_than_records_do_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "_ALWAYS_ALLOWED", 1 << 10)
    path = write(tmp_path, "a.jsonl.gz", gzip.compress(b" " * (1 << 24)))
    with pytest.raises(ValueError, match="unpacks to more than 200 times its size"):
        open_records(path)
    assert not [file for file in (tmp_path / "cache" / "unpacked").iterdir() if file.suffix != ".lock"]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.json", '[{"a": 1}, 7, {"c": 3}]', "the record is the number 7; expected an object"),
        ("a.json", '[{"a": 1}, null, {"c": 3}]', "the record is null; expected an object"),
        ("a.json", '[{"a": 1},\n {"b": "图", "x": y}, {"c": 3}]', "malformed JSON at line 2, column 18"),
        ("a.json", '[\n {"a": 1}, {"b": "图", "x": y}, {"c": 3}]', "malformed JSON at line 2, column 28"),
        ("a.json", '[{"a": 1}, {"b": NaN}, {"c": 3}]', "`b` is NaN at line 1, column 18"),
        ("a.json", '[{"a": 1}, {"b": 1, "b": 1}, {"c": 3}]', "key `b` comes twice"),
        ("a.json", b'[{"a": 1}, {"b": "\xff"}, {"c": 3}]', "not UTF-8 at line 1, column 19"),
        ("a.jsonl", '{"a": 1}\n[7]\n{"c": 3}', "the record is the list [7]; expected an object"),
        ("a.jsonl", '{"a": 1}\n\n{"b": }\n{"c": 3}', "malformed JSON at line 3, column 7"),
        ("a.jsonl", b'{"a": 1}\n{"b": "\xff"}\n{"c": 3}', "not UTF-8 at line 2, column 8"),
        ("a.jsonl", '{"a": 1}\n{"b": 1} {"b": 2}\n{"c": 3}', "malformed JSON at line 2, column 10"),
    ],
)
def test_one_bad_record_does_not_hide_the_others(tmp_path, name, content, problem):
    path = write(tmp_path, name, content)
    for _ in range(2):  # indexed, and found again
        first, bad, last = open_records(path)
        assert (first, last) == ({"a": 1}, {"c": 3})
        assert isinstance(bad, RecordError)
        assert problem in str(bad)
        assert (bad.source.file, bad.source.index) == (path, 1)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_record_that_is_too_long_is_not_read(tmp_path, monkeypatch, name):
    for module in (items, json_store):
        monkeypatch.setattr(module, "LONGEST", 100)
    lines = ['{"a": 1}', f'{{"a": "{"x" * 100}"}}', '{"c": 3}']
    text = "\n".join(lines) if name.endswith("l") else f"[{','.join(lines)}]"
    first, bad, last = open_records(write(tmp_path, name, text))
    assert (first, last) == ({"a": 1}, {"c": 3}) and "takes 109 bytes; expected at most 100" in str(bad)


def test_lines_of_a_long_document_are_not_indexed_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(shape, "_SAMPLE", 1000)
    indexed = []
    monkeypatch.setattr(shape, "index_lines", lambda content: indexed.append(len(content)) or index_lines(content))
    document = {"images": [{"id": number} for number in range(1000)]}
    assert open_records(write(tmp_path, "a.json", json.dumps(document, indent=1))) == document
    assert len(list(open_records(write(tmp_path, "b.json", '{"a": 1}\n' * 1000)))) == 1000
    assert indexed == [1000, 1000, 9000]


def test_a_place_far_into_a_line_is_counted_in_bytes(tmp_path):
    text = "[" + '{"a": 1}, ' * 20_000 + '{"a": x}]'
    *_, bad = open_records(write(tmp_path, "a.json", text))
    assert f"malformed JSON at byte {text.index('x') + 1}: " in str(bad)


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.parquet", "a.tar"])
@pytest.mark.parametrize("change", ["longer", "later", "removed"])
def test_a_file_that_changes_after_it_was_indexed_is_told(tmp_path, name, change):
    path = write(tmp_path, name, written_as(name))
    records = open_records(path)
    assert not isinstance(next(iter(records)), RecordError)
    if change == "longer":
        status = os.stat(path)
        with open(path, "ab") as file:
            file.write(b" ")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "later":
        os.utime(path, ns=(1, 1))
    else:
        os.unlink(path)
    ((entry, source),) = records.located([1])
    assert isinstance(entry, RecordError) and entry.source == source and source.index == 1
    assert ("cannot be read: No such file" if change == "removed" else "has changed since it was indexed") in str(entry)


def written_as(name: str) -> bytes:
    if name.endswith(".json"):
        return b'[{"a": "1"}, {"a": "2"}]'
    if name.endswith(".csv"):
        return b"a\n1\n2\n"
    if name.endswith(".parquet"):
        return parquet_of({"a": ["1", "2"]})
    return tar_of({"1.json": b'{"a": "1"}', "2.json": b'{"a": "2"}'})


def parquet_of(columns: dict) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(columns), sink)
    return sink.getvalue().to_pybytes()


def tar_of(files: dict[str, bytes]) -> bytes:
    import io
    import tarfile

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def test_a_file_that_is_written_to_while_it_is_indexed_is_not_kept(tmp_path, monkeypatch):
    from paddlemix.datasets.records import indexed_file

    path = write(tmp_path, "a.jsonl", '{"a": 1}\n')
    index = indexed_file.index_json

    def growing(stored, **keys):
        spans = index(stored, **keys)
        with open(path, "a") as file:
            file.write('{"a": 2}\n')
        return spans

    monkeypatch.setattr(indexed_file, "index_json", growing)
    with pytest.raises(ValueError, match="written to while it was indexed"):
        open_records(path)
    assert not list((tmp_path / "cache" / "index").glob("*.npy"))


@pytest.mark.skipif(not CASES.is_dir(), reason="the examples of users are not here")
@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [("A42/lines.json", 3, 0), ("A42/list.jsonl", 3, 0), ("A42/oneline.jsonl", 3, 0), ("A42/pretty.jsonl", 3, 0),
     ("A43/bom.json", 1, 0), ("A43/bom.jsonl", 2, 0), ("A43/cr.jsonl", 2, 0), ("A43/nan.json", 1, 1),
     ("A43/nan.jsonl", 1, 1), ("A43/surrogate.json", 1, 1), ("A43/surrogate.jsonl", 1, 1), ("A43/trailing.json", 1, 0),
     ("A43/u2028.jsonl", 1, 0), ("A64/dup.jsonl", 0, 1)],
)  # fmt: skip
def test_files_of_users_are_read_but_for_their_bad_records(name, good, bad):
    entries = list(open_records(str(CASES / name)))
    assert sum(isinstance(entry, RecordError) for entry in entries) == bad
    assert len(entries) == good + bad


def test_several_hundred_records_are_read_in_any_order(tmp_path):
    values = [{"n": n, "text": 'a "quoted" 图\n'} for n in range(300)]
    records = open_records(write(tmp_path, "a.json", json.dumps(values)))
    assert [entry["n"] for entry, _ in records.located([299, 0, 7, 7])] == [299, 0, 7, 7]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("shape", ["list", "lines", "indented list", "indented values", "object"])
def test_a_file_whose_bytes_are_changed_ends_in_words_whatever_they_are(tmp_path, name, shape):
    values = [{"id": n, "said": [{"id": "a"}, ["图", "\\"]], "x": {"y": None}} for n in range(6)]
    indent = 1 if shape.startswith("indented") else None
    text = {
        "list": json.dumps(values, indent=indent),
        "lines": "\n".join(map(json.dumps, values)),
        "values": "\n".join(json.dumps(value, indent=indent) for value in values),
        "object": json.dumps({"a": values}),
    }[shape.removeprefix("indented ")].encode()
    chance = random.Random(f"{name} {shape}")
    outcomes = set()
    for _ in range(60):
        changed = bytearray(text)
        for _ in range(chance.choice((1, 1, 2, 9))):
            place = chance.randrange(len(changed))
            changed[place : place + chance.randrange(3)] = bytes(
                chance.choices(b'[]{},":\\\n x\xff\x00', k=chance.randrange(3))
            )
        path = write(tmp_path, name, bytes(changed))
        try:
            records = open_records(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)  # noqa: PT017
            outcomes.add("refused")
            continue
        entries = [records] if isinstance(records, dict) else list(records)
        assert entries and not any("has changed since" in str(entry) for entry in entries)
        outcomes |= {type(entry) for entry in entries}
    assert outcomes >= ({dict} if shape == "object" else {dict, RecordError})


@pytest.mark.parametrize(
    ("name", "begin", "end", "expected"),
    [
        ("a.json", b"", b"", "malformed JSON"),
        ("a.jsonl", b"", b"", "malformed JSON"),
        ("a.json", b'{"a": "', b'"}', "malformed JSON at byte 8: it is zero"),
        ("a.json", b'{"a": "', b'"}\n{"a": 1}', None),
        ("a.jsonl", b'{"a": 1}\n', b"", None),
        ("a.json", b'[{"a": 1}, ', b"]", None),
    ],
)
def test_files_with_holes_are_not_read_into_memory(tmp_path, name, begin, end, expected):
    path = tmp_path / name
    with open(path, "wb") as file:
        file.write(begin)
        file.seek(300 << 20)
        file.write(end or b"\0")
    tracemalloc.start()
    try:
        if expected is None:
            assert any(isinstance(one, RecordError) for one in open_records(str(path)))
        else:
            with pytest.raises(ValueError, match=rf"{name}: .*{expected}"):
                open_records(str(path))
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
