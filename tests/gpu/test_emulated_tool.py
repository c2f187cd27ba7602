"""The tool in half precision, on an emulated card: what it holds, what it goes on from, and what float16 skips."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from . import host_ops

SCRIPT = Path(__file__).with_name("emulated_tool.py")
ROOT = SCRIPT.parents[2]
RUNS = ("bf16", "lora", "held", "fp16", "fp16_lora")


@pytest.fixture(scope="module")
def runs(
    library: str, tiny_checkpoint: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """What came of each run."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PADDLEMIX_OPS": "reference"}
    paths = [library, str(tiny_checkpoint), str(shapes), str(tmp_path_factory.mktemp("runs"))]
    command = [sys.executable, "-W", "ignore", str(SCRIPT), *paths]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def losses(run: dict[str, Any]) -> list[float]:
    return [entry["loss"] for entry in run["log"] if "loss" in entry]


def scales(run: dict[str, Any]) -> list[float]:
    return [entry["loss_scale"] for entry in run["log"] if "loss_scale" in entry]


def skipped(run: dict[str, Any]) -> list[bool]:
    """Of each step whether the scale of the loss was halved."""
    return [now < before for before, now in pairwise([run["first_scale"], *scales(run)])]


@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on_from_a_checkpoint_bit_by_bit(runs, name):
    assert runs[name]["compared"] == 3  # the model, the checkpoint's, and the optimizer's states
    assert runs[name]["differ"] == []


@pytest.mark.parametrize(("name", "dtype"), [("bf16", "BF16"), ("lora", "BF16"), ("held", "BF16"), ("fp16", "F16")])
def test_half_precision_weights_are_updated_by_way_of_float32_copies(runs, name, dtype):
    model, states = (runs[name]["dtypes"][file] for file in sorted(runs[name]["dtypes"]))
    assert model == {"": [dtype]}
    assert states["master_weight"] == ["F32"]
    assert {"moment1", "moment2"} < set(states) and {*map(tuple, states.values())} == {("F32",)}


@pytest.mark.skipif(bool(host_ops.reason_not_to()), reason=host_ops.reason_not_to())
@pytest.mark.parametrize("name", ["bf16", "lora", "held", "fp16"])
def test_built_ops_compute_all_that_they_are_asked_for_where_weights_are_in_half_precision(runs, name):
    assert runs[name]["asked"] > 50
    assert runs[name]["refused"] == []


def test_a_run_learns_and_says_what_its_answers_are_worth(runs):
    first, *_, last = losses(runs["bf16"])
    assert last < first - 0.2
    evaluations = [entry for entry in runs["bf16"]["log"] if "eval_loss" in entry]
    assert [entry["step"] for entry in evaluations] == [2, 4, 4]
    assert all("eval_vqa_exact_match" in entry for entry in evaluations)
    assert evaluations[1]["eval_loss"] < evaluations[0]["eval_loss"]


@pytest.mark.parametrize("name", ["fp16", "fp16_lora"])
def test_a_step_that_overflows_in_float16_is_left_out_and_told_of(runs, name):
    run = runs[name]
    left_out = skipped(run)
    assert left_out[0] and not left_out[-1]
    assert run["moved"] == [not one for one in left_out[1:]]
    rates = [state["scheduler"]["last_epoch"] for state in run["states"].values()]
    assert rates == [left_out[: step + 1].count(False) for step in range(len(left_out))]
    told = [warning for warning in run["warnings"] if "too large for float16" in warning]
    steps = [step for step, one in enumerate(left_out, 1) if one]
    assert [warning.partition(":")[0] for warning in told] == [f"step {step}" for step in steps]
    assert all(f"multiplied by {scales(run)[step - 1]:,.0f} from" in told[at] for at, step in enumerate(steps))
    assert "Found inf" not in run["printed"] and not any("optimizer not run" in one for one in run["warnings"])
    norms = [entry["grad_norm"] for entry in run["log"] if "loss" in entry]
    assert [norm is None for norm in norms] == left_out


def test_the_norm_of_gradients_is_without_the_scale(runs):
    """The first step that is taken has the weights that the run begins with, and so has a run that hardly moves."""
    step = skipped(runs["fp16"]).index(False)
    norm, still = (runs[name]["log"][step]["grad_norm"] for name in ("fp16", "still"))
    assert norm == pytest.approx(still, rel=0.01)
    assert norm > 0.5  # so that it was clipped, by `max_grad_norm`
    assert skipped(runs["still"]) == [False] * 4


def test_checkpoints_hold_what_the_loss_is_multiplied_by(runs):
    for name in ("fp16", "fp16_lora"):
        states = [state["scaler"] for state in runs[name]["states"].values()]
        assert [state["scale"] for state in states] == [[scale] for scale in scales(runs[name])]
        assert states[-1]["incr_count"] > 0
    assert all(state["scaler"] == {} for state in runs["bf16"]["states"].values())
