"""The short form of kill_and_resume.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("kill_and_resume.py")


def test_a_run_killed_in_its_steps_and_saves_ends_with_the_weights_of_one_left_alone(
    tiny_checkpoint: Path, shapes: Path, tmp_path: Path
) -> None:
    flags = ["--kills", "4", "--model_name_or_path", tiny_checkpoint, "--data", shapes, "--folder", tmp_path]
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, flags)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "killed 4 times" in ended.stdout and "save" in ended.stdout and "bit-equal: all" in ended.stdout
