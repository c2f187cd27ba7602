"""What of the CUDA benchmark needs no card."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cuda_ops.py"


@pytest.fixture(scope="module")
def cuda_ops():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        spec = importlib.util.spec_from_file_location("cuda_ops", SCRIPT)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


class FakeSide:
    """A card that copies 1e12 bytes a second."""

    def copy_bandwidth(self, repeats):
        return 1e12

    def product_rate(self, dtype, repeats):
        return 1e15

    def timings(self, ops, dtype):
        common = {"torch": "torch", "forward_work": 1e9, "backward_work": 3e9}
        return {
            "swiglu": lambda: SimpleNamespace(**common, liger="liger", in_products=False),
            "rotary": lambda: SimpleNamespace(**common, liger=None, in_products=False),
            "linear_cross_entropy": lambda: SimpleNamespace(**common, liger=None, in_products=True),
        }

    def time_ours(self, timing, repeats):
        return 0.002, 0.005

    def time_theirs(self, timing, call, repeats):
        return {"torch": (0.004, 0.015), "liger": (0.002, 0.004)}[call]


def options(**values):
    return argparse.Namespace(**{"dtype": "bfloat16", "repeats": 1, "only": "", "seed": 3, **values})


def test_rows_hold_the_share_of_the_cards_limit_and_the_ratios(cuda_ops, tmp_path, capsys):
    rows = list(cuda_ops.measure(FakeSide(), None, options()))
    assert [(row["op"], row["pass"]) for row in rows[:2]] == [("swiglu", "forward"), ("swiglu", "both")]
    forward, both = rows[:2]
    assert forward["milliseconds"] == 2 and forward["share_of_limit"] == pytest.approx(0.5)
    assert both["share_of_limit"] == pytest.approx(0.8)
    assert both["torch_ratio"] == pytest.approx(3) and both["liger_ratio"] == pytest.approx(0.8)
    assert "liger_ratio" not in rows[2]
    assert rows[4]["op"] == "linear_cross_entropy" and rows[4]["limit_per_second"] == 1e15

    file = tmp_path / "results" / "rows.jsonl"
    cuda_ops.record(rows, file)
    cuda_ops.record(rows[:1], file)
    assert [json.loads(line) for line in file.read_text().splitlines()] == [*rows, rows[0]]
    cuda_ops.print_rows(rows)
    assert "50%" in capsys.readouterr().out


def test_only_the_ops_that_are_asked_for_are_timed(cuda_ops):
    assert {row["op"] for row in cuda_ops.measure(FakeSide(), None, options(only="rot"))} == {"rotary"}


def test_checks_are_of_all_dtypes_and_keep_the_worst(cuda_ops, monkeypatch):
    asked = []

    def check(case, ops, dtype, gradients, get, shift):
        asked.append((case.name, dtype, shift))
        return 2.0 if (dtype, shift) == ("float16", 1) else 0.1

    monkeypatch.setattr(cuda_ops, "check", check)
    fake = SimpleNamespace(swiglu=None, swiglu_grad=None, activation=None, activation_grad=None)
    monkeypatch.setattr(cuda_ops, "cases", lambda ops, rng, start: [SimpleNamespace(name="swiglu (7,)")])
    worst = cuda_ops.check_all(fake, None, None, options())
    assert worst == {"swiglu float32": 0.1, "swiglu bfloat16": 0.1, "swiglu float16": 2.0}
    assert len(asked) == 6


def test_an_op_that_is_not_there_is_no_success(cuda_ops, monkeypatch):
    monkeypatch.setattr(cuda_ops, "cases", lambda ops, rng, start: [])
    with pytest.raises(SystemExit, match="--only nothing"):
        cuda_ops.check_all(None, None, None, options(only="nothing"))


def test_inputs_are_others_at_each_run_unless_a_seed_is_given(cuda_ops, monkeypatch):
    drawn = []
    monkeypatch.setattr(cuda_ops, "check", lambda *arguments: 0.0)
    monkeypatch.setattr(
        cuda_ops, "cases", lambda ops, rng, start: drawn.append(rng.random()) or [SimpleNamespace(name="gelu (1,)")]
    )
    for seed in (None, None, 3, 3):
        cuda_ops.check_all(None, None, None, options(seed=seed))
    first, second, third, fourth = drawn[::6]
    assert first != second and third == fourth
    assert np.unique(drawn[:6]).size == 1


def test_a_machine_without_pytorch_or_a_card_is_told_in_a_sentence(cuda_ops, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit, match="has no PyTorch"):
        cuda_ops.find_card()
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False)))
    with pytest.raises(SystemExit, match="no CUDA card"):
        cuda_ops.find_card()


def test_a_machine_without_nvcc_or_the_sanitizer_is_told_in_a_sentence(cuda_ops, monkeypatch, tmp_path):
    monkeypatch.setattr(cuda_ops.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="no nvcc"):
        cuda_ops.build(tmp_path)
    with pytest.raises(SystemExit, match="no compute-sanitizer"):
        cuda_ops.run_sanitized("memcheck")


def test_the_command_line_is_explained_with_an_example(cuda_ops, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cuda_ops.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        cuda_ops.parse_arguments()
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert "python benchmarks/cuda_ops.py --dtype bfloat16" in text and "--sanitizer" in text
