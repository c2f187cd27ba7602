"""What a run that goes on knows besides its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paddlemix.checkpoints.resume_state import FILE, ResumeState


def test_the_log_of_a_long_run_is_read(tmp_path: Path) -> None:
    entry = {f"value_{number}": number / 7 for number in range(13)}
    state = ResumeState(log=[{"step": step, **entry} for step in range(30_000)])
    state.write(tmp_path)
    assert ResumeState.read(tmp_path) == state


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scheduler", "x"),
        ("scaler", [1]),
        ("scaler", {"scale": [0.0], "incr_count": 0, "decr_count": 0}),
        ("scaler", {"scale": 1024.0, "incr_count": 0, "decr_count": 0}),
        ("scaler", {"scale": [1024.0], "incr_count": -1, "decr_count": 0}),
        ("scaler", {"scale": [1024.0], "incr_count": 0}),
        ("total_loss", "x"),
        ("total_loss", 10**400),
        ("log", [1]),
        ("log", {}),
        ("log", [{"loss": [1]}]),
        ("evaluations_without_gain", "x"),
        ("evaluations_without_gain", -1),
    ],
)
def test_values_of_other_kinds_are_named(tmp_path: Path, key: str, value: Any) -> None:
    (tmp_path / FILE).write_text(json.dumps({key: value}))
    with pytest.raises(ValueError, match=rf"{FILE}: `{key}` is "):
        ResumeState.read(tmp_path)
