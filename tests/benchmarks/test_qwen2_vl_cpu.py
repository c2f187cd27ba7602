from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "qwen2_vl_cpu.py"


def run(*arguments):
    """The benchmark, with one thread: two that wait for one another on a busy machine take minutes."""
    command = [sys.executable, str(SCRIPT), "--shape", "tiny", "--repeats", "3", "--threads", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmark") / "rows.jsonl"
    path.write_text('{"kept": true}\n')
    process = run("--output", str(path))
    assert process.returncode == 0, process.stderr
    kept, *rows = (json.loads(line) for line in path.read_text().splitlines())
    assert kept == {"kept": True}
    return process.stdout, [row for row in rows if row["side"] == "paddlemix"]


def test_every_part_is_measured_and_recorded(finished):
    _, rows = finished
    memory = {"memory_after_import", "peak_memory"}
    metrics = {part: {row["metric"] for row in rows if row["part"] == part} for part in ("train", "generate", "images")}
    assert metrics == {
        "train": {"training_step", "parameters", *memory},
        "generate": {"prefill", "decode_token", "parameters", *memory},
        "images": {"image", *memory},
    }
    assert all(row["machine"] and row["time"] and row["versions"]["threads"] == "1" for row in rows)


def test_numbers_are_above_zero_and_percentiles_stand_in_their_order(finished):
    _, rows = finished
    assert all(0 < row["p10"] <= row["median"] <= row["p90"] for row in rows)
    repeats = {row["metric"]: row["samples"] for row in rows}
    assert (repeats["training_step"], repeats["prefill"], repeats["decode_token"], repeats["image"]) == (3, 3, 12, 12)


def test_the_table_shows_what_is_recorded(finished):
    table, rows = finished
    for row in rows:
        assert f"{row['median']:.4g}" in table
    assert "training step, s" in table and "images, /s" in table


def test_a_python_without_transformers_is_told_in_one_sentence_before_anything_is_measured():
    process = run("--torch_python", "false", "--parts", "images")
    assert process.returncode == 1 and process.stdout == ""
    assert process.stderr == "--torch_python false: transformers' Qwen2-VL cannot be imported there: it ended with 1\n"
