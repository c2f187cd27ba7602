"""Random generators go on where they were."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import paddle

from paddlemix.checkpoints.random_states import load_random_states, save_random_states


def draws() -> list[object]:
    return [random.random(), random.gauss(0, 1), np.random.normal(), paddle.rand([2]).tolist(), paddle.rand([1]).item()]


def test_every_generator_draws_after_loading_what_it_drew_after_saving(tmp_path: Path) -> None:
    draws()  # leaves half a pair of normal numbers in Python's and numpy's generators
    random.gauss(0, 1)
    save_random_states(tmp_path / "state.json")
    expected = draws()
    assert draws() != expected
    load_random_states(tmp_path / "state.json")
    assert draws() == expected


def test_the_file_is_json_that_runs_nothing(tmp_path: Path) -> None:
    save_random_states(tmp_path / "state.json")
    assert set(json.loads((tmp_path / "state.json").read_text())) == {"python", "numpy", "paddle_cpu", "paddle_device"}
