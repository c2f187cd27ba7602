"""Runs that meet in one folder, files that others change between two starts, and what killed runs have left."""

from __future__ import annotations

import json
import logging
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paddlemix.configuration import file as config_file
from paddlemix.staging import name_beside
from paddlemix.tools import supervised_finetune
from paddlemix.training import run_trainer
from paddlemix.training.callbacks.progress import StepLog


class Run:
    """A config over records of its own, and what comes of running it in this process."""

    def __init__(self, folder: Path, checkpoint: Path, shapes: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        shutil.copytree(shapes, self.data)
        sets = [{"name": "vqa_dataset", "data_files": str(self.data / "train_vqa.json"), "max_samples": 4}]
        self.config = {
            "model_name_or_path": str(checkpoint),
            "dataset": {"train": sets, "eval": sets},
            "do_train": True,
            "max_steps": 2,
            "per_device_train_batch_size": 2,
            "save_steps": 1,
            "report_to": "none",
            "skip_memory_metrics": True,
            "resume_from_checkpoint": True,
        }

    def __call__(self, out: str, **changes: Any) -> Path:
        file = self.folder / "config.json"
        file.write_text(json.dumps({**self.config, "output_dir": str(self.folder / out), **changes}))
        supervised_finetune.run(config_file.load_config(str(file), has_gpu=False))
        return self.folder / out


@pytest.fixture
def run(tmp_path: Path, tiny_checkpoint: Path, shapes: Path) -> Run:
    return Run(tmp_path, tiny_checkpoint, shapes)


def in_first_step(monkeypatch: pytest.MonkeyPatch, happen: Callable[[], None]) -> None:
    class Happening(StepLog):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 0:
                happen()

    monkeypatch.setattr(run_trainer, "StepLog", Happening)


def test_a_second_run_is_refused_whether_it_trains_or_evaluates_and_harms_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def start_others() -> None:
        for changes in ({}, {"do_train": False, "do_eval": True}):
            with pytest.raises(OSError, match=r"`output_dir` .*out is in use by another run \(process \d+ on host"):
                run("out", **changes)
            refused.append(changes)

    in_first_step(monkeypatch, start_others)
    out = run("out")
    assert len(refused) == 2 and (out / "model.safetensors").is_file()
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]


def test_all_files_of_a_checkpoint_have_the_mode_of_new_files(run: Run) -> None:
    (run.folder / "new").touch()
    wanted = stat.S_IMODE((run.folder / "new").stat().st_mode)
    files = [path for path in run("out").rglob("*") if path.is_file()]
    assert any(path.name.startswith("optimizer-") for path in files)
    assert [path.name for path in files if stat.S_IMODE(path.stat().st_mode) != wanted] == []


@pytest.mark.parametrize("changes", [{}, {"do_train": False, "do_eval": True}])
def test_what_a_kill_in_the_final_save_left_is_cleared_at_the_next_start(run: Run, changes: dict[str, Any]) -> None:
    out = run.folder / "out"
    out.mkdir()
    left = name_beside(out / "model.safetensors")
    left.mkdir()
    (left / ".tmpAb3xYz").write_bytes(b"half a model")
    (out / ".checkpoint-1.0123456789ab.staging").symlink_to("nowhere")
    run("out", **changes)
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]


def test_a_file_with_a_checkpoints_name_is_refused_with_a_sentence(run: Run) -> None:
    (run.folder / "out").mkdir()
    (run.folder / "out" / "checkpoint-2").touch()
    with pytest.raises(ValueError, match=r"checkpoint-2 has the name of a checkpoint, but is a file; expected"):
        run("out")


def test_records_and_images_that_hold_something_else_are_told_by_set(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    run("out")
    assert "set 1 of" not in caplog.text
    file = run.data / "train_vqa.json"
    text = file.read_text("utf-8")
    file.write_text(text.replace("What", "Whut").replace("what", "whut").replace("How", "Haw"), "utf-8")
    assert file.read_text("utf-8") != text
    images = [path for path in run.data.rglob("*") if path.suffix in (".png", ".jpg")]
    assert len(images) > 4
    for image in images:
        image.write_bytes(image.read_bytes())
    with caplog.at_level(logging.WARNING):
        run("out", max_steps=3)
    told = [line for line in caplog.text.splitlines() if "vqa_dataset, set 1 of `dataset.train`: " in line]
    assert len(told) == 1 and "train_vqa.json holds something else" in told[0]
    assert "images or videos that it shows were written anew" in told[0]


def test_more_accumulated_batches_than_there_are_records_are_refused(run: Run) -> None:
    with pytest.raises(ValueError, match=r"`gradient_accumulation_steps` is 60000, but an epoch has only 4 rows"):
        run("out", gradient_accumulation_steps=60000)
