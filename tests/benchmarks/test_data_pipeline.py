from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """By metric, what the parts measure at the smallest size that take seconds there."""
    output = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    parts = ["loader", "index", "train"]
    sizes = ["--shape", "tiny", "--repeats", "1", "--records", "500", "--samples", "16"]
    command = [sys.executable, str(ROOT / "benchmarks" / "data_pipeline.py"), "--parts", *parts, *sizes]
    command += ["--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert {row["part"] for row in found} == set(parts)
    assert [row["metric"] in done.stdout for row in found] == [True] * len(found)
    return {row["metric"]: row for row in found}


def test_every_number_is_above_zero(rows):
    at_least = {name: row["median"] for name, row in rows.items() if not name.startswith("memory grown")}
    assert len(at_least) >= 15 and min(at_least.values()) > 0


def test_of_padded_rows_less_than_half_is_real(rows):
    real = [row["median"] for name, row in rows.items() if name.startswith("share of")]
    assert len(real) == 2 and max(real) < 50
