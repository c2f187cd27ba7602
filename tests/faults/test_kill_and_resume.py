"""The short form of kill_and_resume.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kill_and_resume.py")


@pytest.mark.skipif(shutil.which("cc") is None or sys.platform != "linux", reason="the killer is built by a C compiler")
def test_a_run_killed_at_every_kind_of_call_ends_as_one_left_alone_with_nothing_left_behind(
    tiny_checkpoint: Path, shapes: Path, tmp_path: Path
) -> None:
    flags = ["--kills", "7", "--steps", "4", "--model_name_or_path", tiny_checkpoint, "--data", shapes]
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, [*flags, "--folder", tmp_path / "runs"])],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "killed 7 times" in ended.stdout and "bit-equal: all" in ended.stdout
    for kind in ("open", "write", "fsync", "rename", "unlink", "mkdir", "moment"):
        assert f": {kind} " in ended.stdout
