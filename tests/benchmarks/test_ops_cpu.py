from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ops_cpu.py"


def test_every_op_that_is_asked_for_is_measured_shown_and_recorded(tmp_path):
    rows_file = tmp_path / "rows.jsonl"
    command = [sys.executable, str(SCRIPT), "--only", "rms_norm", "gelu", "decode_block", "tower", "--repeats", "1"]
    done = subprocess.run(
        [*command, "--threads", "1", "--output", str(rows_file)], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()]
    measured = {(row["op"], row["pass"]) for row in rows if row["side"] == "built"}
    towers = ("tower in windows", "tower in whole images")
    both = {(op, name) for op in ("rms_norm", "gelu", *towers) for name in ("forward", "both")}
    assert measured == {*both, ("decode_block on 600 keys", "forward")}
    assert all(row["milliseconds"] > 0 and row["machine"] for row in rows)
    assert "rms_norm" in done.stdout and "Paddle" in done.stdout and "swiglu" not in done.stdout
