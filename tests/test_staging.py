"""Names beside what is being written: unlike one another, and known once their process is dead."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import time
from pathlib import Path

import pytest

from paddlemix import staging
from paddlemix.files import new_folder, replacing
from paddlemix.staging import clear_dead, is_staged, name_beside


def die_in_a_write(folder: Path) -> None:
    with replacing(folder / "model.safetensors") as beside, new_folder(folder / "merged") as other:
        beside.write_bytes(b"half")
        (other / "half").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_wrote_is_cleared_by_the_next_and_what_a_live_one_writes_is_not(tmp_path: Path) -> None:
    killed = multiprocessing.get_context("fork").Process(target=die_in_a_write, args=(tmp_path,))
    killed.start()
    killed.join()
    left = set(tmp_path.iterdir())
    assert len(left) == 2 and all(map(is_staged, left))
    (tmp_path / ".mine.part").touch()
    staging.clear_dead_once.cache_clear()
    with replacing(tmp_path / "metrics.json") as beside:
        beside.touch()
        assert clear_dead(tmp_path) == [] and not left & set(tmp_path.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.part", "metrics.json"]


def test_a_process_with_the_number_of_a_dead_one_does_not_keep_what_that_wrote(tmp_path: Path) -> None:
    name_beside(tmp_path / "a.json").touch()
    (path,) = tmp_path.iterdir()
    host, process, began, rest = path.name.split(".")[2].split("-")
    path.rename(tmp_path / f".a.{host}-{process}-{int(began) + 1}-{rest}.part.json")
    assert len(clear_dead(tmp_path)) == 1


def test_what_another_host_writes_is_left_alone_for_a_day(tmp_path: Path) -> None:
    path = tmp_path / ".a.00000000-1-1-00000000.part.json"
    path.touch()
    assert is_staged(path) and clear_dead(tmp_path) == []
    day_before = time.time() - 25 * 3600
    os.utime(path, (day_before, day_before))
    assert clear_dead(tmp_path) == [path]


def test_names_differ_in_one_process_and_keep_suffix_and_length(tmp_path: Path) -> None:
    target = tmp_path / f"{'图' * 80}.json"
    names = {name_beside(target) for _ in range(100)}
    assert len(names) == 100
    assert all(path.suffix == ".json" and is_staged(path) and len(os.fsencode(path.name)) < 255 for path in names)


def test_what_a_writer_makes_beside_its_file_is_cleared_with_it(tmp_path: Path) -> None:
    with replacing(tmp_path / "model.safetensors", in_folder=True) as beside:
        (beside.parent / ".tmpAb3xYz").touch()
        beside.write_bytes(b"whole")
        assert is_staged(beside.parent) and beside.suffix == ".safetensors"
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o007])
def test_a_file_gets_the_mode_of_any_new_one_whatever_its_writer_gives_it(tmp_path: Path, mask: int) -> None:
    earlier = os.umask(mask)
    try:
        with replacing(tmp_path / "closed") as beside:
            os.close(os.open(beside, os.O_CREAT, 0o600))
        with replacing(tmp_path / "open") as beside:
            beside.touch()
    finally:
        os.umask(earlier)
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("closed", "open")}
    assert modes == {0o666 & ~mask} and len(list(tmp_path.iterdir())) == 2
