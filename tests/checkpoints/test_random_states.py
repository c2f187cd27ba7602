"""Random generators go on where they were."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

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


@pytest.mark.parametrize(
    "damage",
    [
        lambda states: [],
        lambda states: {},
        lambda states: {**states, "python": [3, [-1] * 625, None]},
        lambda states: {**states, "python": [3, [1] * 5, None]},
        lambda states: {**states, "numpy": ["MT19937", [1] * 624, 2**40, 0, 0.0]},
        lambda states: {**states, "numpy": None},
        lambda states: {**states, "paddle_cpu": [1, 2, "x"]},
        lambda states: {**states, "paddle_device": [[0] * 9]},
        lambda states: {**states, "paddle_device": 1e300},
    ],
)
def test_a_file_of_other_states_is_named(tmp_path: Path, damage: Callable[[Any], Any]) -> None:
    file = tmp_path / "state.json"
    save_random_states(file)
    file.write_text(json.dumps(damage(json.loads(file.read_text()))))
    with pytest.raises(ValueError, match=r"state\.json: "):
        load_random_states(file)
