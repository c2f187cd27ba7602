"""Degrees are held against the number of processes before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paddlemix.configuration.arguments import FinetuneConfig, ModelArguments
from paddlemix.configuration.degrees import DEGREES, check_degrees
from paddlemix.configuration.problems import ConfigError, Place

FILE = Path("run.json")


def config(model: Path | str = "m", **degrees: int) -> FinetuneConfig:
    given: Any = dict.fromkeys(DEGREES, -1) | degrees | {"sharding": ""}
    places = {name: Place(str(FILE), line) for line, name in enumerate(degrees, start=4)}
    return FinetuneConfig(ModelArguments(model_name_or_path=str(model)), None, given, str(FILE), places)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("processes", "degrees"),
    [(None, {}), (8, {}), (8, {"sharding_parallel_degree": 4}), (None, dict.fromkeys(DEGREES, 1))],
)
def test_degrees_that_divide_the_number_of_processes_go(
    monkeypatch: pytest.MonkeyPatch, processes: int | None, degrees: dict[str, int]
) -> None:
    set_processes(monkeypatch, processes)
    check_degrees(config(**degrees))


@pytest.mark.parametrize(
    ("processes", "degrees", "expected"),
    [
        (
            6,
            {"sharding_parallel_degree": 4},
            "`sharding_parallel_degree` (4) does not divide the number of processes, which is 6.",
        ),
        (
            None,
            {"sharding_parallel_degree": 2},
            "which is 1. Start the run by `python -m paddle.distributed.launch` on 2",
        ),
        (
            2,
            {"tensor_parallel_degree": 2, "sharding_parallel_degree": 2},
            "`tensor_parallel_degree` (2) times `sharding_parallel_degree` (2) is 4, which does not divide",
        ),
    ],
)
def test_others_are_refused_with_the_line_of_the_key(
    monkeypatch: pytest.MonkeyPatch, processes: int | None, degrees: dict[str, int], expected: str
) -> None:
    set_processes(monkeypatch, processes)
    with pytest.raises(ConfigError) as refused:
        check_degrees(config(**degrees))
    assert expected in str(refused.value) and "run.json:4: " in str(refused.value)


def test_a_model_that_ranks_cannot_share_is_refused_by_the_key_of_its_config(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, tiny_qwen_vl: Path
) -> None:
    set_processes(monkeypatch, 4)
    check_degrees(config(tiny_qwen_vl, tensor_parallel_degree=2))
    with pytest.raises(ConfigError, match="run.json:4: `tensor_parallel_degree` is 2, but") as refused:
        check_degrees(config(tiny_checkpoint, tensor_parallel_degree=2))
    assert "`num_key_value_heads` 1. Set it to 1, which this model" in str(refused.value)


def set_processes(monkeypatch: pytest.MonkeyPatch, processes: int | None) -> None:
    if processes is None:
        monkeypatch.delenv("PADDLE_TRAINERS_NUM", raising=False)
    else:
        monkeypatch.setenv("PADDLE_TRAINERS_NUM", str(processes))
