from __future__ import annotations

from pathlib import Path

import pytest

from paddlemix.datasets.records.data_files import find_record_files
from paddlemix.datasets.records.file_names import checked_file, kind_of


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.json", ".json"),
        ("a.JSONL.GZ", ".jsonl"),
        ("a.csv.gz", ".csv"),
        ("a.tar.gz", ".gz"),
        ("a.parquet", ".parquet"),
    ],
)
def test_the_kind_of_a_file_is_its_ending_without_gz(name, kind):
    assert kind_of(Path(name)) == kind


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("a.tar.gz", "unpack it to a .tar first"),
        ("a.TGZ", "unpack it to a .tar first"),
        ("a.arrow", "write it as Parquet: datasets.load_from_disk(folder).to_parquet(file)"),
        ("a.xlsx", "this one in '.xlsx'; save it as \"CSV UTF-8\""),
        ("a.zip", "unpack it first"),
        (
            "a.txt",
            "ends in .json, .jsonl, .csv, .tsv (with or without .gz after it), .parquet or .tar, this one in '.txt'",
        ),
    ],
)
def test_a_file_of_another_kind_is_refused_with_what_to_do(tmp_path, name, advice):
    (tmp_path / name).touch()
    with pytest.raises(ValueError) as caught:
        checked_file(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ") and advice in str(caught.value)


@pytest.mark.parametrize("name", ["missing.json", "folder.json"])
def test_what_is_no_file_is_refused_with_the_key_to_correct(tmp_path, name):
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no such record file; correct `data_files`"):
        checked_file(tmp_path / name)


@pytest.mark.parametrize("names", [["dataset_info.json", "state.json", "data-0.arrow"], ["dataset_dict.json"]])
def test_a_folder_of_save_to_disk_is_refused_with_what_to_do(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="what `save_to_disk` of Hugging Face's datasets writes.*to_parquet"):
        find_record_files(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("s-{08..11}.tar", ["s-08.tar", "s-09.tar", "s-10.tar", "s-11.tar"]),
        ("{0..1}.json", ["0.json", "1.json"]),
        ("{a}.json", ["{a}.json"]),
    ],
)
def test_a_stretch_of_numbers_names_each_file(name, names):
    assert find_record_files(name) == names


@pytest.mark.parametrize("name", ["s-{5..1}.tar", "s-{0..9999999}.tar"])
def test_a_stretch_that_is_empty_or_endless_is_refused(name):
    with pytest.raises(ValueError, match="expected a stretch from a smaller number"):
        find_record_files(name)


def test_a_folder_is_all_record_files_that_lie_in_it(tmp_path):
    names = ["a.json", "b.jsonl.gz", "c.csv", "d.tsv.gz", "e.parquet", "f.tar", "metadata.jsonl"]
    for name in [*names, "x.jpg", "g.tar.gz", "README.md"]:
        (tmp_path / name).touch()
    assert [Path(path).name for path in find_record_files(str(tmp_path))] == names
