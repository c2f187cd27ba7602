from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from paddlemix.conversation import RecordId
from paddlemix.datasets.formats import find_format
from paddlemix.datasets.records.data_files import divide_contents, find_record_files, locate_records, read_files


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


CHAT = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
CAPTION = {"image": "a.jpg", "caption": "c"}
TABLES = {"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": [{"image_id": 7, "caption": "c"}]}


@pytest.mark.parametrize(("name", "record"), [("llava", CHAT), ("caption_dataset", CAPTION)])
def test_a_file_of_one_object_that_is_a_record_is_read_as_one(tmp_path, name, record):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(record))
    contents = list(read_files([str(file)]))
    wanted = [(record, RecordId(str(file), 0))]
    assert list(locate_records(contents, name, find_format(name))) == wanted
    (records,), documents = divide_contents(contents, name, find_format(name))
    assert (list(records.located([0])), len(records), documents) == (wanted, 1, {})


def test_tables_beside_a_record_alone_stay_tables(tmp_path):
    for name, content in (("a.json", CAPTION), ("b.json", TABLES), ("c.json", [CAPTION])):
        (tmp_path / name).write_text(json.dumps(content))
    contents = list(read_files([str(tmp_path)]))
    records, documents = divide_contents(contents, "coco_caption", find_format("coco_caption"))
    assert ([len(one) for one in records], list(documents)) == ([1, 1], [str(tmp_path / "b.json")])


@pytest.mark.parametrize("read", [locate_records, divide_contents])
def test_one_object_that_is_no_record_of_the_format_is_refused_with_why(read):
    with pytest.raises(ValueError, match="a.json: the file holds one object; llava expects a list of records, and the"):
        list(read([("a.json", TABLES)], "llava", find_format("llava")))


def test_tables_in_several_files_are_joined():
    questions = {"data_subtype": "val2014", "questions": [{"question_id": 1, "image_id": 2, "question": "q"}]}
    answers = {"annotations": [{"question_id": 1, "answers": [{"answer": "a"}]}]}
    flat = [{"image": "a.jpg", "question": "q", "answer": "a"}]
    located = list(
        locate_records([("q.json", questions), ("f.json", flat), ("a.json", answers)], "vqa", find_format("vqav2"))
    )
    assert [str(source) for _, source in located] == ["f.json, record 0", "q.json, record 0"]
