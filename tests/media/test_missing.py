"""A missing file is named with where it was looked for and what is there in its place."""

from __future__ import annotations

import json
import unicodedata

import pytest

from paddlemix.conversation import Conversation, Image, RecordError, RecordId, Text, Turn, Video
from paddlemix.media.images import ImageError, image_size
from paddlemix.media.unreadable import missing


def refusal(path) -> str:
    with pytest.raises(ImageError) as caught:
        image_size(str(path))
    return str(caught.value)


def test_a_relative_path_is_told_with_the_place_it_means(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = f"image a.jpg does not exist. It was looked for at {tmp_path / 'a.jpg'}."
    assert refusal("a.jpg") == expected
    assert refusal(tmp_path / "a.jpg") == f"image {tmp_path / 'a.jpg'} does not exist."


def test_a_missing_folder_is_told(tmp_path):
    assert refusal(tmp_path / "b" / "a.jpg").endswith(f"does not exist. There is no folder {tmp_path / 'b'}.")


@pytest.mark.parametrize(
    ("asked", "there"),
    [("A.JPG", "a.jpg"), ("a.jpg", "A.jpg"), ("a.jpg", "a.png"), ("a.jpeg", "A.JPG"), ("straße.png", "STRASSE.png")],
)
def test_a_name_that_differs_in_case_or_suffix_is_suggested(tmp_path, asked, there):
    (tmp_path / there).touch()
    (tmp_path / "other.txt").touch()
    assert refusal(tmp_path / asked).endswith(f"does not exist. There is {there} in its folder.")


def test_a_name_whose_letters_are_composed_otherwise_is_suggested(tmp_path):
    asked, there = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    (tmp_path / there).touch()
    if (tmp_path / asked).exists():
        pytest.skip("the file system takes both for one")
    assert f"There is {there} in its folder." in refusal(tmp_path / asked)


def test_only_so_many_names_of_a_folder_are_looked_at(tmp_path, monkeypatch):
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).touch()
    monkeypatch.setattr(missing, "_MOST_NAMES", 0)
    assert refusal(tmp_path / "A.png").endswith("does not exist.")


@pytest.mark.parametrize("shown", [Image("{}/a.jpg"), Video("{}/a.mp4"), Video(("{}/1.jpg", "{}/2.jpg"))])
def test_a_record_names_the_key_that_its_paths_start_from(make_processor, tmp_path, shown):
    paths = shown.path if isinstance(shown.path, str) else list(shown.path)
    there = json.loads(json.dumps(paths).replace("{}", str(tmp_path)))
    part = type(shown)(there if isinstance(there, str) else tuple(there))
    turns = (Turn("user", (part, Text("q"))), Turn("assistant", (Text("a"),)))
    with pytest.raises(RecordError, match=r"^a.json, record 3: .* does not exist\. .*`image_root` of the set"):
        make_processor().measure(Conversation(turns, RecordId("a.json", 3)))


def test_an_image_that_is_there_and_broken_names_no_folder(make_processor, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    turns = (Turn("user", (Image(str(tmp_path / "a.jpg")), Text("q"))), Turn("assistant", (Text("a"),)))
    with pytest.raises(RecordError) as caught:
        make_processor().measure(Conversation(turns, RecordId("a.json", 3)))
    assert "image_root" not in str(caught.value)
