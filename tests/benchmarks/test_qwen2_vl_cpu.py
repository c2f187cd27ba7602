from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from paddlemix.ops.tensors import built

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "qwen2_vl_cpu.py"


def run(*arguments):
    """The benchmark, with one thread: two that wait for one another on a busy machine take minutes."""
    command = [sys.executable, str(SCRIPT), "--shape", "tiny", "--repeats", "3", "--threads", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmark") / "rows.jsonl"
    path.write_text('{"kept": true}\n')
    process = run("--quantize", "int4", "--output", str(path))
    assert process.returncode == 0, process.stderr
    kept, *rows = (json.loads(line) for line in path.read_text().splitlines())
    assert kept == {"kept": True}
    ours = [row for row in rows if row["side"] == "paddlemix"]
    return process.stdout, *([row for row in ours if row["quantize"] == kind] for kind in (None, "int4"))


def test_every_part_is_measured_and_recorded(finished):
    _, rows, _ = finished
    memory = {"memory_after_import", "peak_memory"}
    metrics = {part: {row["metric"] for row in rows if row["part"] == part} for part in ("train", "generate", "images")}
    assert metrics == {
        "train": {"training_step", "parameters", *memory},
        "generate": {"prefill", "decode_token", "parameters", *memory},
        "images": {"image", *memory},
    }
    assert all(row["machine"] and row["time"] and row["versions"]["threads"] == "1" for row in rows)


def test_numbers_are_above_zero_and_percentiles_stand_in_their_order(finished):
    _, rows, _ = finished
    assert all(0 < row["p10"] <= row["median"] <= row["p90"] for row in rows)
    repeats = {row["metric"]: row["samples"] for row in rows}
    assert (repeats["training_step"], repeats["prefill"], repeats["decode_token"], repeats["image"]) == (3, 3, 12, 12)


@pytest.fixture
def floors(finished):
    """The rows beside which a floor stands, which the built ops count."""
    if reason := built.library().reason:
        pytest.skip(f"no built ops: {reason}")
    return {row["metric"]: row for row in finished[1] if "floor" in row}


def test_step_prompt_and_token_stand_beside_their_floors(finished, floors):
    table, _, _ = finished
    assert set(floors) == {"training_step", "prefill", "decode_token"}
    for row in floors.values():
        assert row["times_floor"] == pytest.approx(row["median"] / row["floor"]) and row["floor"] > 0
        assert f"{row['times_floor']:.2f} x its floor" in table


def test_what_was_counted_is_what_the_shapes_say(floors):
    # The shape `tiny`: one block of each kind; two rows of 12 tokens, of which 4 stand for an image of 16 patches.
    tower, text, inner, heads, tokens, patches, words = 32, 32, 64, 2, 24, 32, 64
    size, keys_width = 16, 16
    blocks = tokens * (2 * text * text + 2 * text * keys_width + 3 * text * inner)
    vision = patches * (4 * tower**2 + 2 * 4 * tower**2) + patches // 4 * ((4 * tower) ** 2 + 4 * tower * text)
    embedding = patches * 1176 * tower
    asked = 2 * (12 - 6)  # each token behind the image and the two beside it is a target
    head = asked * text * words
    attention = 2 * heads * (patches // 2) ** 2 * (tower // 2) + 2 * heads * 12**2 * size / 2
    forward = blocks + vision + embedding + head + 2 * attention
    # Backward each product becomes two, but pixels need no gradient; attention computes its scores again.
    backward = 2 * (blocks + vision + head) + embedding + 5 * attention
    assert floors["training_step"]["flop"] == 2 * (forward + backward)
    assert floors["prefill"]["flop"] == 2 * (forward - head + 2 * text * words)
    weights = 2 * text * text + 2 * text * keys_width + 3 * text * inner + text * words
    # A prompt of 12 tokens, two tokens and twelve measured ones before the one that is counted, and itself.
    cache = 2 * keys_width * (12 + 2 + 12 + 1)
    assert floors["decode_token"]["bytes"] == 4 * (weights + cache)


def test_of_quantised_weights_generating_is_measured_and_their_own_bytes_are_counted(finished, floors):
    _, rows, quantised = finished
    assert {row["part"] for row in quantised} == {"generate"}
    assert {row["metric"] for row in quantised} == {row["metric"] for row in rows if row["part"] == "generate"}
    (token,) = (row for row in quantised if row["metric"] == "decode_token")
    numbers, outputs = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64, 32 + 2 * 16 + 32 + 2 * 64 + 32
    # Half a byte a number, and in rows so short a scale and a zero an output.
    assert floors["decode_token"]["bytes"] - token["bytes"] == 4 * numbers - numbers // 2 - 8 * outputs


def test_the_table_shows_what_is_recorded(finished):
    table, rows, quantised = finished
    for row in (*rows, *quantised):
        assert f"{row['median']:.4g}" in table
    assert "training step, s" in table and "images, /s" in table and "generate, int4" in table


def test_a_python_without_transformers_is_told_in_one_sentence_before_anything_is_measured():
    process = run("--torch_python", "false", "--parts", "images")
    assert process.returncode == 1 and process.stdout == ""
    assert process.stderr == "--torch_python false: transformers' Qwen2-VL cannot be imported there: it ended with 1\n"
