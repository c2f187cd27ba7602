"""pytest-xdist runs nothing unless its workers collect the same tests: names may depend on nothing but the code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Loaded as a plugin, before any test file: a clock that goes two days ahead.
ANOTHER_DAY = """
import time

now, now_ns = time.time, time.time_ns
time.time = lambda: now() + 2 * 86400
time.time_ns = lambda: now_ns() + 2 * 86400 * 10**9
"""


def start_collection(folder: Path, hash_seed: str, *plugins: str) -> subprocess.Popen[str]:
    """List the tests' names in a process with its own order of sets, temporary folder and addresses."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": str(folder),
        "TMPDIR": str(folder),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += [word for plugin in plugins for word in ("-p", plugin)]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipe)


def test_two_processes_collect_the_same_tests(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir(), other.mkdir()
    (other / "another_day.py").write_text(ANOTHER_DAY)
    running = [start_collection(one, "1"), start_collection(other, "2", "another_day")]
    outputs = [process.communicate()[0] for process in running]
    names = [[line for line in output.splitlines() if "::" in line] for output in outputs]
    assert [process.returncode for process in running] == [0, 0], "\n".join(outputs)
    assert len(names[0]) > 1000
    assert names[0] == names[1]
