"""Where a record's path leads to, as people write paths."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from paddlemix.datasets.reading.fields import resolved


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("images/a.jpg", "a b图.jpg", "home/c.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("images/a.jpg", "images/a.jpg"),
        ("images\\a.jpg", "images/a.jpg"),
        (".\\images\\a.jpg", "images/a.jpg"),
        ("gone\\b.jpg", "gone/b.jpg"),
        ("~/c.jpg", "home/c.jpg"),
        ("~\\c.jpg", "home/c.jpg"),
        ("~gone.jpg", "~gone.jpg"),
        ("file://images/a.jpg", "images/a.jpg"),
        ("file://{root}/a%20b%E5%9B%BE.jpg", "a b图.jpg"),
        ("file://{root}/a b图.jpg", "a b图.jpg"),
        ("file://localhost{root}/images/a.jpg", "images/a.jpg"),
        ("a%20b%E5%9B%BE.jpg", "a%20b%E5%9B%BE.jpg"),
        ("{root}/images/a.jpg", "images/a.jpg"),
    ],
)
def test_a_path_leads_to_the_file_that_it_means(root, path, expected):
    assert Path(resolved(path.format(root=root), root)) == root / expected


def test_a_file_whose_name_holds_such_characters_is_meant_as_it_stands(root):
    for name in ("images\\a.jpg", "a%20b图.jpg"):
        (root / name).touch()
    assert resolved("images\\a.jpg", root) == str(root / "images\\a.jpg")
    assert resolved(f"file://{root}/a%20b图.jpg", root) == str(root / "a%20b图.jpg")


@pytest.mark.parametrize("address", ["http://h/a\\b%20~.jpg", "HTTPS://h/a.jpg", "data:image/png;base64,AA"])
def test_addresses_stay_as_they_are_but_for_blanks_round_them(root, address):
    assert resolved(address, root) == resolved(f" {address}\n", root) == address


@pytest.mark.parametrize("path", ["a\0b.jpg", "a\\\0b.jpg", "~\0", "file://%00", "\ud800\\b.jpg", "x" * 5000 + "\\y"])
def test_what_can_be_no_path_is_no_error_here(root, path):
    assert resolved(path, root).startswith(str(root) + os.sep)
