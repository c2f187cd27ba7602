"""What is noticed of a set's files that hold something else than when the run began."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from paddlemix.datasets.records import content
from paddlemix.datasets.records.content import SetContent

MEDIA = np.array([[100, 1], [200, 2]], dtype=np.int64)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "train.json"
    path.write_text('[{"answer": "a cat"}]')
    return path


def of(*files: Path, media: np.ndarray = MEDIA) -> SetContent:
    return SetContent(**SetContent.of("vqa_dataset", [str(file) for file in files], media).as_json())


def touch(file: Path) -> None:
    os.utime(file, ns=(1, 1))


def test_answers_of_equal_length_are_noticed_and_a_copy_of_the_file_is_not_complained_about(file: Path) -> None:
    before = of(file)
    assert of(file).changes_since(before) == []
    touch(file)
    assert of(file).changes_since(before) == []
    file.write_text('[{"answer": "a dog"}]')
    assert of(file).changes_since(before) == ["train.json holds something else"]


def test_large_files_are_read_in_places_and_what_is_not_known_is_said(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "_WHOLE", 10)
    monkeypatch.setattr(content, "_BLOCK", 2)
    monkeypatch.setattr(content, "_PLACES", 2)
    before = of(file)
    file.write_text('[{"answer": "a dog"}]')
    touch(file)
    assert of(file).changes_since(before) == ["train.json was written anew, and may hold something else"]
    file.write_text('({"answer": "a dog"}]')
    assert of(file).changes_since(before) == ["train.json holds something else"]


def test_images_of_equal_size_that_were_written_anew_are_noticed_and_others_more_so(file: Path) -> None:
    before = of(file)
    anew, larger = MEDIA.copy(), MEDIA.copy()
    anew[1, 1], larger[1] = 3, (201, 3)
    assert of(file, media=anew).changes_since(before) == [
        "images or videos that it shows were written anew, in files of the same sizes"
    ]
    assert of(file, media=larger).changes_since(before) == ["images or videos that it shows have other sizes in bytes"]


def test_another_number_of_files_is_told(file: Path) -> None:
    assert of(file, file).changes_since(of(file)) == ["its records are in 2 files now and were in 1"]
