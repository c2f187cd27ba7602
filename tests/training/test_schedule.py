"""How many steps a run takes, and rates at its two ends."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from paddlenlp.trainer.trainer_utils import SchedulerType, get_scheduler

from paddlemix.configuration import file as config_file
from paddlemix.tools import supervised_finetune
from paddlemix.training.schedule import count_steps, end_safely

STEPS, PEAK, END = 4, 2e-3, 1e-7
KINDS = ("linear", "cosine", "constant", "constant_with_warmup", "polynomial")


@pytest.mark.parametrize(
    ("epoch_steps", "epochs", "steps"),
    [(1, 0.5, 1), (1, 0.9, 1), (1, 1.0, 1), (3, 0.5, 2), (3, 1.5, 5), (7, 0.1, 1), (10, 3.0, 30)],
)
def test_a_part_of_a_step_is_a_whole_one(epoch_steps: int, epochs: float, steps: int) -> None:
    assert count_steps(epoch_steps, SimpleNamespace(max_steps=-1, num_train_epochs=epochs)) == steps
    assert count_steps(epoch_steps, SimpleNamespace(max_steps=8, num_train_epochs=epochs)) == 8


def expected(kind: str, warm_up: int, step: int) -> float:
    """The rate as transformers 4.57 computes it, which fails only behind the last step of a warm-up of all steps."""
    if kind == "constant":
        return PEAK
    if step < warm_up:
        return PEAK * step / warm_up
    share = (step - warm_up) / max(STEPS - warm_up, 1)
    fallen = {"linear": 1 - share, "cosine": (1 + math.cos(math.pi * share)) / 2, "constant_with_warmup": 1.0}
    return END + (PEAK - END) * (1 - share) if kind == "polynomial" else PEAK * fallen[kind]


@pytest.mark.parametrize("warm_up", [0, 1, STEPS - 1, STEPS, STEPS + 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_step_has_the_rate_of_its_formula_with_any_warm_up(kind: str, warm_up: int) -> None:
    schedule = get_scheduler(kind, PEAK, warm_up, STEPS, lr_end=END)
    end_safely(schedule, SimpleNamespace(lr_scheduler_type=SchedulerType(kind), lr_end=END, learning_rate=PEAK), STEPS)
    rates = []
    for _ in range(STEPS):
        rates.append(schedule.get_lr())
        schedule.step()
    assert rates == pytest.approx([expected(kind, warm_up, step) for step in range(STEPS)], rel=1e-9)
    assert 0 <= schedule.get_lr() <= PEAK


@pytest.fixture
def run(tmp_path: Path, tiny_checkpoint: Path, shapes: Path) -> Callable[..., list[dict[str, float]]]:
    """A function that trains on some records and gives the log."""

    def run(records: int, **keys: Any) -> list[dict[str, float]]:
        item = {"name": "coco_caption", "data_files": str(shapes / "train_caption.json"), "max_samples": records}
        config = {
            "model_name_or_path": str(tiny_checkpoint),
            "dataset": {"train": [{**item, **keys.pop("item", {})}]},
            "output_dir": str(tmp_path / "out"),
            "do_train": True,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 4,
            "save_strategy": "no",
            "report_to": "none",
            "skip_memory_metrics": True,
            **keys,
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        supervised_finetune.run(config_file.load_config(str(tmp_path / "config.json"), has_gpu=False))
        log = json.loads((tmp_path / "out" / "trainer_log.json").read_text())
        return [entry for entry in log if "loss" in entry]

    return run


@pytest.mark.parametrize(("batch", "epochs", "steps"), [(16, 0.5, 1), (16, 0.9, 1), (2, 1.2, 3)])
def test_a_run_takes_the_steps_that_its_plan_counts(
    run: Callable[..., list[dict[str, float]]], batch: int, epochs: float, steps: int, capsys: pytest.CaptureFixture
) -> None:
    keys = {"lr_scheduler_type": "linear", "warmup_ratio": 0.0, "learning_rate": PEAK}
    log = run(3, num_train_epochs=epochs, gradient_accumulation_steps=batch // 2, per_device_train_batch_size=2, **keys)
    assert [entry["step"] for entry in log] == list(range(1, steps + 1))
    assert f"  steps: {steps} (" in capsys.readouterr().out
    assert [entry["learning_rate"] for entry in log] == pytest.approx(
        [PEAK * (1 - one / steps) for one in range(1, steps + 1)], rel=1e-3
    )


def test_a_polynomial_schedule_ends_after_a_warm_up_of_all_steps(run: Callable[..., list[dict[str, float]]]) -> None:
    assert len(run(4, max_steps=2, lr_scheduler_type="polynomial", warmup_ratio=1.0)) == 2


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"max_steps": 0}, "`max_steps` is 0, and a run without a step trains nothing"),
        ({"lr_scheduler_type": "polynomial", "learning_rate": 1e-7}, "`learning_rate` is 1e-07, not above `lr_end`"),
        ({"item": {"splits": ":1%"}}, r"`splits` \[':1%'\] takes none of the .* records"),
    ],
)
def test_a_run_without_a_step_or_a_rate_is_refused_by_its_key(
    run: Callable[..., list[dict[str, float]]], keys: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        run(4, **keys)
    assert not (tmp_path / "out").exists()
