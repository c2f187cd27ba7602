from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from paddlemix.conversation import RecordId
from paddlemix.datasets.formats import find_format
from paddlemix.datasets.records.data_files import find_record_files, locate_records, read_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make four record files, one of them deeper and one gzipped, and two other files."""
    folder = tmp_path / "数据"
    (folder / "deeper").mkdir(parents=True)
    for name in ("b.json", "a.jsonl", "deeper/d.json", "[1].json"):
        (folder / name).write_text('{"x": 1}' if name.endswith("l") else '[{"x": 1}]')
    (folder / "c.jsonl.gz").write_bytes(gzip.compress(b'{"x": 1}\n{"x": 2}'))
    (folder / "image.jpg").touch()
    (folder / "notes.txt.gz").touch()
    return folder


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.jsonl", ["a.jsonl"]),
        ("nowhere.json", ["nowhere.json"]),
        (".", ["[1].json", "a.jsonl", "b.json", "c.jsonl.gz"]),
        ("*.json*", ["[1].json", "a.jsonl", "b.json", "c.jsonl.gz"]),
        ("?.json", ["b.json"]),
        ("**/*.json", ["[1].json", "b.json", "deeper/d.json"]),
        ("[1].json", ["[1].json"]),
    ],
)
def test_a_name_means_a_file_a_folder_or_a_pattern(folder, name, found):
    names = [str(Path(path).relative_to(folder)) for path in find_record_files(str(folder / name))]
    assert names == sorted(found)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("*.csv", "no file matches this pattern; correct `data_files`"),
        (
            "empty",
            "no file in this folder ends in .json, .jsonl, .csv, .tsv (with or without .gz after it), .parquet or .tar",
        ),
    ],
)
def test_a_name_that_means_nothing_is_refused(folder, name, problem):
    (folder / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=re.escape(problem)):
        find_record_files(str(folder / name))


def test_records_are_counted_file_by_file(folder):
    contents = read_files([str(folder / "c.jsonl.gz"), str(folder / "b.json")])
    located = list(locate_records(contents, "llava", find_format("llava")))
    assert located == [
        ({"x": 1}, RecordId(str(folder / "c.jsonl.gz"), 0)),
        ({"x": 2}, RecordId(str(folder / "c.jsonl.gz"), 1)),
        ({"x": 1}, RecordId(str(folder / "b.json"), 0)),
    ]


def test_files_behind_those_that_are_needed_are_not_read(folder):
    contents = read_files([str(folder / "b.json"), str(folder / "nowhere.json")])
    assert next(locate_records(contents, "llava", find_format("llava")))[0] == {"x": 1}
    with pytest.raises(FileNotFoundError):
        next(contents)


def test_tables_in_several_files_are_joined():
    questions = {"data_subtype": "val2014", "questions": [{"question_id": 1, "image_id": 2, "question": "q"}]}
    answers = {"annotations": [{"question_id": 1, "answers": [{"answer": "a"}]}]}
    flat = [{"image": "a.jpg", "question": "q", "answer": "a"}]
    located = list(
        locate_records([("q.json", questions), ("f.json", flat), ("a.json", answers)], "vqa", find_format("vqav2"))
    )
    assert [str(source) for _, source in located] == ["f.json, record 0", "q.json, record 0"]
