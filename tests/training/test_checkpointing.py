"""Runs that are stopped, spoilt or short of room, and what they leave to go on from."""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

from paddlemix.configuration import file as config_file
from paddlemix.tools import supervised_finetune
from paddlemix.training import checkpointing, run_trainer
from paddlemix.training import sft as sft_trainer
from paddlemix.training.callbacks.finite_checks import NonFiniteError
from paddlemix.training.callbacks.interruption import EXIT_CODE
from paddlemix.training.callbacks.progress import StepLog

STEPS, STEPS_PER_EPOCH = 5, 2

Weights = dict[str, np.ndarray]


class Run:
    """A config, and what comes of running it in this process."""

    def __init__(self, folder: Path, checkpoint: Path, shapes: Path) -> None:
        self.folder = folder
        self.config = {
            "model_name_or_path": str(checkpoint),
            "dataset": {
                part: [
                    {"name": "vqa_dataset", "data_files": str(shapes / f"{part}_vqa.json"), "max_samples": 4},
                    {"name": "coco_caption", "data_files": str(shapes / f"{part}_caption.json"), "max_samples": 4},
                ]
                for part in ("train", "eval")
            },
            "do_train": True,
            "max_steps": STEPS,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "learning_rate": 5e-3,
            "save_steps": 1,
            "logging_steps": 2,
            "report_to": "none",
            "skip_memory_metrics": True,
            "seed": 0,
        }

    def __call__(self, out: str, **changes: Any) -> Path:
        file = self.folder / "config.json"
        file.write_text(json.dumps({**self.config, "output_dir": str(self.folder / out), **changes}))
        supervised_finetune.run(config_file.load_config(str(file), has_gpu=False))
        return self.folder / out


@pytest.fixture(scope="module")
def whole_run(tiny_checkpoint: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run left alone, with a checkpoint of every step."""
    out = Run(tmp_path_factory.mktemp("whole"), tiny_checkpoint, shapes)("out")
    assert len(list(out.glob("checkpoint-*"))) == STEPS
    return out


@pytest.fixture
def run(tmp_path: Path, tiny_checkpoint: Path, shapes: Path) -> Run:
    return Run(tmp_path, tiny_checkpoint, shapes)


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[Any], None]], None]:
    """Lets something happen at the beginning of a step, the first of which is 1."""

    def plan(step: int, happen: Callable[[Any], None]) -> None:
        class Happening(StepLog):
            def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
                if state.global_step == step - 1:
                    happen(model)

        monkeypatch.setattr(run_trainer, "StepLog", Happening)

    return plan


def weights(out: Path) -> Weights:
    return load_file(out / "model.safetensors")


def assert_bit_equal(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert len(first) > 30 and first.keys() == second.keys()
    assert [name for name in first if first[name].tobytes() != second[name].tobytes()] == []


def losses(out: Path) -> list[tuple[int, float]]:
    log = json.loads((out / "trainer_log.json").read_text())
    return [(entry["step"], entry["loss"]) for entry in log if "loss" in entry]


@pytest.mark.parametrize(
    ("step", "where"), [(1, "middle"), (2, "boundary"), (3, "middle"), (5, "end")], ids=lambda value: str(value)
)
def test_a_run_goes_on_from_any_step_bit_by_bit(run: Run, whole_run: Path, step: int, where: str) -> None:
    assert where == ("end" if step == STEPS else "middle" if step % STEPS_PER_EPOCH else "boundary")
    paddle.seed(99)
    out = run("resumed", resume_from_checkpoint=str(whole_run / f"checkpoint-{step}"))
    assert_bit_equal(out, whole_run)
    assert losses(out) == losses(whole_run) and [at for at, _ in losses(out)] == list(range(1, STEPS + 1))
    results = [json.loads((one / "all_results.json").read_text())["train_loss"] for one in (out, whole_run)]
    assert results[0] == pytest.approx(results[1], rel=1e-6)  # sums of the same losses, in another order
    last = out / f"checkpoint-{STEPS}"
    assert last.is_dir() == (step < STEPS)


def test_random_states_go_on_at_the_boundary_of_an_epoch_too(
    run: Run, whole_run: Path, at_step: Callable[..., None]
) -> None:
    drawn: list[float] = []
    at_step(3, lambda model: drawn.append(paddle.rand([1]).item()))
    run("alone")
    for seed in (1, 2):
        paddle.seed(seed)
        run(f"resumed-{seed}", resume_from_checkpoint=str(run.folder / "alone" / "checkpoint-2"))
    assert len(drawn) == 3 and drawn[0] == drawn[1] == drawn[2]


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_used(
    run: Run, whole_run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(whole_run, run.folder / "out")
    file = run.folder / "out" / f"checkpoint-{STEPS}" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with caplog.at_level(logging.INFO):
        out = run("out", resume_from_checkpoint=True)
    assert f"checkpoint-{STEPS} is damaged and not used: model.safetensors has another SHA-256" in caplog.text
    assert f"Going on from {out / 'checkpoint-4'}" in caplog.text
    assert_bit_equal(out, whole_run)
    assert_bit_equal(out / f"checkpoint-{STEPS}", whole_run)


OTHER_RUNS: dict[str, dict[str, Any]] = {
    "`seed` was 0 and is 1": {"seed": 1},
    "`max_length` was 2048 and is 300": {"max_length": 300},
    "`freeze_vit` was false and is true": {"freeze_vit": True},
    "`per_device_train_batch_size` was 2 and is 4": {"per_device_train_batch_size": 4},
    '`loss_per` was "token" and is "sample"': {"loss_per": "sample"},
}


@pytest.mark.parametrize("difference", OTHER_RUNS)
def test_a_checkpoint_of_another_config_is_refused_by_the_keys_that_differ(
    run: Run, whole_run: Path, difference: str
) -> None:
    with pytest.raises(ValueError, match="is of another run: ") as refused:
        run("out", resume_from_checkpoint=str(whole_run / "checkpoint-2"), **OTHER_RUNS[difference])
    assert difference in str(refused.value) and "\n" not in str(refused.value)
    assert not list((run.folder / "out").glob("checkpoint-*"))


def test_other_sets_and_another_model_are_told_together(run: Run, whole_run: Path, tiny_checkpoint: Path) -> None:
    from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
    from paddlemix.models.qwen2_vl import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    values = AutoModelMIX.from_pretrained(tiny_checkpoint).config.to_published()
    other = run.folder / "deeper"
    Qwen2VLForConditionalGeneration(Qwen2VLConfig(**{**values, "num_hidden_layers": 3})).save_pretrained(other)
    AutoProcessorMIX.from_pretrained(tiny_checkpoint).save_pretrained(other)
    dataset = {"train": run.config["dataset"]["train"][:1]}
    changes = {"model_name_or_path": str(other), "dataset": dataset}
    with pytest.raises(
        ValueError, match=r"the model's `num_hidden_layers` was 2 and is 3; `dataset.train` has changed"
    ):
        run("out", resume_from_checkpoint=str(whole_run / "checkpoint-2"), **changes)


def test_what_may_change_is_told_and_a_batch_may_be_cut_anew(
    run: Run, whole_run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "learning_rate": 1e-3}
    out = run("out", resume_from_checkpoint=str(whole_run / "checkpoint-4"), **changes)
    assert "goes on with other values: `learning_rate` was 0.005 and is 0.001" in caplog.text
    assert losses(out)[-1][1] == pytest.approx(losses(whole_run)[-1][1], rel=1e-5)


def test_sigterm_saves_at_the_end_of_the_step_and_ends_with_its_own_code(
    run: Run, whole_run: Path, at_step: Callable[..., None]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    at_step(3, lambda model: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        run("out", save_strategy="no")
    # What a launcher sends after the first does not break the end; this process goes on, and hears it again.
    assert signal.signal(signal.SIGTERM, before) is signal.SIG_IGN
    assert ended.value.code == EXIT_CODE == 75
    out = run.folder / "out"
    assert [path.name for path in out.glob("checkpoint-*")] == ["checkpoint-3"]
    assert not (out / "all_results.json").exists()
    at_step(9, lambda model: None)
    run("out", save_strategy="no", resume_from_checkpoint=True)
    assert_bit_equal(out, whole_run)


def spoil(model: Any) -> None:
    bias = next(parameter for name, parameter in model.named_parameters() if name.endswith("norm.weight"))
    bias.set_value(paddle.full_like(bias, float("nan")))


def test_a_loss_that_is_nan_stops_with_the_records_of_its_batch(run: Run, at_step: Callable[..., None]) -> None:
    at_step(3, spoil)
    with pytest.raises(NonFiniteError, match=r"the loss of step 3 is nan; its batch: ") as stopped:
        run("out")
    assert str(stopped.value).count(".json, record ") == 4
    assert sorted(path.name for path in (run.folder / "out").glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]


def test_only_the_batch_with_the_bad_loss_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, at_step: Callable[..., None]
) -> None:
    calls = []
    whole = sft_trainer.SFTTrainer.compute_loss

    def compute(self: Any, model: Any, inputs: dict[str, Any], **options: Any) -> Any:
        calls.append(self._batches_of(self.state.global_step)[len(calls) % 2])
        loss = whole(self, model, inputs, **options)
        return loss * float("inf") if len(calls) == 4 else loss

    monkeypatch.setattr(sft_trainer.SFTTrainer, "compute_loss", compute)
    with pytest.raises(NonFiniteError, match=r"the loss of step 2 is inf") as stopped:
        run("out")
    assert len(calls) == 4 and str(stopped.value).count(".json, record ") == len(calls[3]) == 2


def test_weights_that_are_nan_are_never_saved(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Spoiler(StepLog):
        def on_optimizer_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            if state.global_step == 2:
                spoil(model)

    monkeypatch.setattr(run_trainer, "StepLog", Spoiler)
    with pytest.raises(NonFiniteError, match=r"after step 3 .*norm.weight holds NaN.*\.json, record "):
        run("out")
    assert sorted(path.name for path in (run.folder / "out").glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("size", [1000, 200_000], ids=["model", "optimizer"])
def test_a_checkpoint_that_does_not_fit_leaves_the_last_one_and_the_sentence_names_it(
    run: Run, whole_run: Path, at_step: Callable[..., None], size: int
) -> None:
    files = {path.name: path.stat().st_size for path in (whole_run / "checkpoint-2").iterdir()}
    assert max(size for name, size in files.items() if name.startswith("optimizer")) > 200_000
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    at_step(3, lambda model: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard)))
    with largest_file(size), pytest.raises(OSError, match=r"the checkpoint of step 3 cannot be written") as refused:
        run("out", save_total_limit=1)
    out = run.folder / "out"
    assert f"goes on from {out / 'checkpoint-2'}, which is whole" in str(refused.value)
    assert [path.name for path in out.iterdir() if "checkpoint" in path.name] == ["checkpoint-2"]
    at_step(9, lambda model: None)
    assert_bit_equal(run("out", save_total_limit=1, resume_from_checkpoint=True), whole_run)


def test_a_rank_that_cannot_write_waits_for_none_that_wait_for_its_part_of_the_model(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, folder: Path) -> None:
        self.args.tensor_parallel_degree = 2
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sft_trainer.SFTTrainer, "write_part", fail)
    monkeypatch.setattr(
        checkpointing, "gather_texts", lambda text: pytest.fail(f"it asks the others, and tells them {text}")
    )
    with pytest.raises(OSError, match=r"the checkpoint of step 1 cannot be written .*: .*No space left on device\."):
        run("out")


def test_results_that_do_not_fit_are_told_in_a_sentence(run: Run, at_step: Callable[..., None]) -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    at_step(1, lambda model: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard)))
    with largest_file(1000), pytest.raises(OSError, match=r"the results cannot be written to `output_dir` .*out: "):
        run("out", max_steps=1, save_strategy="no")


def test_the_best_model_is_loaded_at_the_end_and_training_stops_early(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.5, 5: 0.5}

    class Scores(StepLog):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            monkeypatch.setattr(
                sft_trainer.SFTTrainer, "_sum_over_ranks", lambda trainer, total: scores[trainer.state.global_step]
            )

    monkeypatch.setattr(run_trainer, "StepLog", Scores)
    keys = {
        "load_best_model_at_end": True,
        "evaluation_strategy": "steps",
        "eval_steps": 1,
        "save_total_limit": 1,
        "early_stopping_patience": 2,
    }
    out = run("out", **keys)
    assert sorted(path.name for path in out.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    assert_bit_equal(out, out / "checkpoint-2")
    (out / "model.safetensors").unlink()
    run("out", **keys, resume_from_checkpoint=True)
    assert_bit_equal(out, out / "checkpoint-2")
    assert sorted(path.name for path in out.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]


def test_a_count_towards_early_stopping_survives_a_resume(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sft_trainer.SFTTrainer, "_sum_over_ranks", lambda trainer, total: float(trainer.state.global_step)
    )
    keys = {
        "load_best_model_at_end": True,
        "evaluation_strategy": "steps",
        "eval_steps": 1,
        "early_stopping_patience": 3,
    }
    run("whole", **keys)
    assert (run.folder / "whole" / "checkpoint-4").is_dir() and not (run.folder / "whole" / "checkpoint-5").exists()
    out = run("out", **keys, resume_from_checkpoint=str(run.folder / "whole" / "checkpoint-3"))
    assert [path.name for path in out.glob("checkpoint-*")] == ["checkpoint-4"]
    assert_bit_equal(out, run.folder / "whole" / "checkpoint-1")
