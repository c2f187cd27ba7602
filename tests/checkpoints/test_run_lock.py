"""One run at a time in an `output_dir`, whoever died in it."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from paddlemix.checkpoints import run_lock
from paddlemix.checkpoints.run_lock import FILE, only_run_in

CONTEXT = multiprocessing.get_context("fork")


def hold(folder: Path, taken: Any, fork_one: bool) -> None:
    with only_run_in(folder):
        worker = CONTEXT.Process(target=signal.pause)
        if fork_one:
            worker.start()
        taken.put(worker.pid)
        signal.pause()


@pytest.mark.parametrize("with_worker", [False, True])
def test_a_second_run_is_refused_by_name_until_the_first_is_dead(tmp_path: Path, with_worker: bool) -> None:
    taken = CONTEXT.Queue()
    first = CONTEXT.Process(target=hold, args=(tmp_path, taken, with_worker))
    first.start()
    worker = taken.get(timeout=20)
    try:
        refusal = rf"`output_dir` {tmp_path} is in use by another run \(process {first.pid} on host .*, since 20"
        with pytest.raises(OSError, match=refusal), only_run_in(tmp_path):
            pass
        os.kill(first.pid, signal.SIGKILL)
        first.join()
        with only_run_in(tmp_path) as is_held:  # also where a worker of the dead one lives on
            assert is_held
        assert list(tmp_path.iterdir()) == []
    finally:
        if worker:
            os.kill(worker, signal.SIGKILL)


def test_two_in_one_process_are_refused_too_and_nothing_is_left_behind(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "out"
    with only_run_in(folder), pytest.raises(OSError, match="in use by another run"), only_run_in(folder):
        pass
    assert list(tmp_path.iterdir()) == []
    with only_run_in(folder):
        (folder / "result").touch()
    assert [path.name for path in folder.iterdir()] == ["result"]


def test_a_lock_that_was_deleted_while_it_was_waited_for_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, calls = run_lock.fcntl.flock, []

    def delete_first(descriptor: int, how: int) -> None:
        calls.append(how)
        if len(calls) == 1:
            (tmp_path / FILE).unlink()
        lock(descriptor, how)

    monkeypatch.setattr(run_lock.fcntl, "flock", delete_first)
    with only_run_in(tmp_path) as is_held:
        assert is_held and len(calls) == 2 and (tmp_path / FILE).exists()


def test_a_folder_that_cannot_be_locked_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(run_lock.fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING), only_run_in(tmp_path) as is_held:
        assert not is_held
    assert "cannot be locked (No locks available)" in caplog.text and list(tmp_path.iterdir()) == []


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    (tmp_path / FILE).symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match=FILE), only_run_in(tmp_path):
        pass
    assert (tmp_path / "victim").read_text() == "kept"


def test_a_pipe_in_its_place_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / FILE)
    with pytest.raises(ValueError, match=rf"{FILE} is no regular file; .* Move it away"), only_run_in(tmp_path):
        pass


def test_a_holder_of_another_kind_is_another_process(tmp_path: Path) -> None:
    with only_run_in(tmp_path):
        (tmp_path / FILE).write_text("[" * 4096)
        with pytest.raises(OSError, match="in use by another run .another process"), only_run_in(tmp_path):
            pass
