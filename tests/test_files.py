import json
import os
import stat

import pytest

from paddlemix.files import new_folder, read_json_object, replacing, write_json


def test_json_comes_back_as_it_was_and_chinese_stays_readable(tmp_path):
    path = tmp_path / "new folder" / "metrics.json"
    write_json(path, {"标签": [1, 0.5, None]})
    assert json.loads(path.read_text("utf-8")) == {"标签": [1, 0.5, None]}
    assert "标签" in path.read_text("utf-8")


@pytest.mark.parametrize(("broken", "error"), [({"loss": float("nan")}, ValueError), ({"path": object()}, TypeError)])
def test_what_json_cannot_hold_is_refused_and_the_old_file_stays(tmp_path, broken, error):
    path = tmp_path / "metrics.json"
    write_json(path, {"old": True})
    with pytest.raises(error):
        write_json(path, broken)
    assert json.loads(path.read_text("utf-8")) == {"old": True}


def test_a_writer_that_fails_half_way_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "image.png"
    path.write_text("old")

    def fail_half_way():
        with replacing(path) as beside:
            beside.write_text("ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail_half_way()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["image.png"]


def test_the_file_is_not_there_before_the_block_ends_and_alone_after(tmp_path):
    path = tmp_path / "image.png"
    with replacing(path) as beside:
        beside.write_text("new")
        assert beside.suffix == ".png"
        assert not path.exists()
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["image.png"]


def test_the_file_can_be_read_by_whoever_may_read_the_users_other_files(tmp_path):
    (tmp_path / "other").touch()
    write_json(tmp_path / "metrics.json", {})
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("other", "metrics.json")}
    assert len(modes) == 1


def fill_half(target):
    with new_folder(target) as staged:
        (staged / "half").write_text("half")
        raise RuntimeError


def test_a_new_folder_is_there_whole_or_not_at_all(tmp_path):
    target = tmp_path / "made" / "model"
    with pytest.raises(RuntimeError):
        fill_half(target)
    assert list(target.parent.iterdir()) == []
    with new_folder(target) as staged:
        (staged / "whole").write_text("whole")
        assert not target.exists()
    assert [path.name for path in target.parent.iterdir()] == ["model"]
    assert (target / "whole").read_text() == "whole"
    with pytest.raises(FileExistsError, match="is there already"), new_folder(target):
        pass
    assert (target / "whole").read_text() == "whole"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_may_be_missing_is_not_passed_over_where_something_else_stands(tmp_path, make):
    assert read_json_object(tmp_path / "a.json", missing_ok=True) == {}
    make(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"a\.json is a .*; expected a file"):
        read_json_object(tmp_path / "a.json", missing_ok=True)
