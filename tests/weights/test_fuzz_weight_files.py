"""The short version of tests/weights/fuzz_weight_files.py."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("fuzz_weight_files.py")
DRIVER = runpy.run_path(str(SCRIPT))


def test_every_mutated_file_is_read_in_bounds_or_refused_by_a_sentence():
    # In a process of its own: forks of one that has imported Paddle take ten times as long.
    command = [sys.executable, str(SCRIPT), "--files", "600", "--seed", "1"]
    root = SCRIPT.parents[2]
    run = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)}, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    # Guards: of every format some are accepted, and most refused.
    counts = {found[1]: int(found[2]) for found in re.finditer(r"'([\w.]+ \w+)': (\d+)", run.stdout)}
    for name in DRIVER["seeds"]():
        assert counts[f"{name} accepted"] >= 2 and counts[f"{name} refused"] >= 50
    before, after = re.search(r"quarter: (\d+),.* (\d+)$", run.stdout.strip()).groups()
    assert int(after) - int(before) <= 10


def spin():
    while True:
        pass


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda: {}["x"], "KeyError"),
        (lambda: "é".encode("ascii"), "UnicodeEncodeError"),
        (lambda: bytearray(2 << 30), "MemoryError"),
        (spin, "the process ended"),
    ],
)
def test_the_driver_sees_what_is_not_as_it_should_be(read, said):
    outcome, text, _ = DRIVER["in_fork"](read, seconds=1)
    assert outcome == "failed" and said in text


@pytest.mark.parametrize(
    "said", ["other: damaged.", "/model: damaged\nTraceback.", "/model: " + "a" * 2000 + ".", "/model: bad"]
)
def test_the_driver_sees_a_refusal_that_is_no_sentence_about_the_file(said):
    assert DRIVER["judge"]("/model/file: damaged, fetch it again.", Path("/model")) is None
    assert DRIVER["judge"](said, Path("/model")) is not None
