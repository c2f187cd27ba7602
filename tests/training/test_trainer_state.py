"""What PaddleNLP keeps in a checkpoint about how far a run was."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from paddlenlp.trainer import TrainerState

from paddlemix.training.run_trainer import RunTrainer


def steps_done(folder: Path) -> int:
    trainer = SimpleNamespace(args=SimpleNamespace(ignore_load_lr_and_optim=False))
    return RunTrainer._steps_done(cast(RunTrainer, trainer), folder)


def test_what_paddlenlp_writes_is_read(tmp_path: Path) -> None:
    TrainerState(epoch=0.5, global_step=7, consumed_samples=14).save_to_json(str(tmp_path / "trainer_state.json"))
    assert steps_done(tmp_path) == 7


@pytest.mark.parametrize(
    "values",
    [
        [],
        None,
        {},
        {"global_step": "7"},
        {"global_step": -1},
        {"global_step": 10**30},
        {"global_step": 7, "consumed_samples": 1.5},
        {"global_step": 7, "other": 1},
    ],
)
def test_any_other_state_is_named(tmp_path: Path, values: Any) -> None:
    (tmp_path / "trainer_state.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"trainer_state\.json: "):
        steps_done(tmp_path)
