"""What a run says of itself while it trains."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paddlenlp.trainer import TrainerCallback

from paddlemix.configuration import file as config_file
from paddlemix.ops.tensors import built
from paddlemix.tools import supervised_finetune
from paddlemix.training import sft as sft_trainer
from paddlemix.training.callbacks import fused_adamw

ROWS, EVERY, CLIP = 4, 2, 0.5
SHOWN, TEXTS = 8, 5
STEPS = 5  # an epoch, the last of whose four batches has one record, and a step
# Steps 2 and 4 because of their number, the last because it is.
LOGGED = {2: (1, 2), 4: (3, 4), 5: (5,)}


class Watcher(TrainerCallback):
    """Counts by itself what each batch holds, and takes each step's norm of gradients."""

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id
        self.tokens: list[int] = []
        self.places: list[int] = []
        self.images: list[int] = []
        self.norms: list[float] = []
        self.moved_at_once: list[int] = []

    def on_load_data_end(self, args: Any, state: Any, control: Any, inputs: Any, **kwargs: Any) -> None:
        ids = inputs["input_ids"].numpy()
        self.tokens.append(int((ids != self.pad_token_id).sum()))
        self.places.append(ids.size)
        self.images.append(len(inputs["image_grid_thw"]) if "image_grid_thw" in inputs else 0)

    def on_optimizer_begin(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        squares = [float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None]
        self.norms.append(sum(squares) ** 0.5)


@pytest.fixture(scope="module")
def watched(tiny_checkpoint: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Watcher, Path, str]:
    """A run on records with and without images, its folder, and what it has printed."""
    folder = tmp_path_factory.mktemp("watched")
    counts = [" ".join(str(number) for number in range(many)) for many in (3, 9, 30, 60, 5)]
    assert len(counts) == TEXTS
    texts = [{"conversations": [["Count up.", text]]} for text in counts]
    (folder / "texts.json").write_text(json.dumps(texts), "utf-8")
    sets = [("chatml_dataset", shapes / "train_grounding.json"), ("chatml_dataset", folder / "texts.json")]
    config = {
        "model_name_or_path": str(tiny_checkpoint),
        "dataset": {"train": [{"name": name, "data_files": str(file), "max_samples": SHOWN} for name, file in sets]},
        "output_dir": str(folder / "out"),
        "do_train": True,
        "learning_rate": 1e-3,
        "logging_steps": EVERY,
        "max_grad_norm": CLIP,
        "max_steps": STEPS,
        "per_device_train_batch_size": ROWS,
        "save_strategy": "no",
        "report_to": "visualdl",
        "seed": 1,
    }
    watcher, said = finetune(folder, config)
    return watcher, folder, said


def finetune(folder: Path, config: dict[str, Any]) -> tuple[Watcher, str]:
    """Train by a config, watched."""
    (folder / "config.json").write_text(json.dumps(config))
    watchers, whole = [], sft_trainer.SFTTrainer.__init__

    def begin(self: Any, *arguments: Any, **options: Any) -> None:
        whole(self, *arguments, **options)
        watchers.append(Watcher(self.data_collator.pad_token_id))
        self.add_callback(watchers[0])

    step = fused_adamw.adamw_step

    def count(tensors: Any, **numbers: Any) -> None:
        watchers[0].moved_at_once.append(len(tensors.parameters))
        step(tensors, **numbers)

    said: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fused_adamw, "adamw_step", count)
        patched.setattr(sft_trainer.SFTTrainer, "__init__", begin)
        patched.setattr("builtins.print", lambda *words, **_: said.append(" ".join(map(str, words))))
        supervised_finetune.run(config_file.load_config(str(folder / "config.json"), has_gpu=False))
    return watchers[0], "\n".join(said)


def logged(folder: Path) -> dict[int, dict[str, float]]:
    """By step what a run into `folder / "out"` logged of it."""
    entries = json.loads((folder / "out" / "trainer_log.json").read_text())
    return {entry["step"]: entry for entry in entries if "loss" in entry}


@pytest.fixture(scope="module")
def log(watched: tuple[Watcher, Path, str]) -> dict[int, dict[str, float]]:
    """By step what was logged of it."""
    found = logged(watched[1])
    assert found.keys() == LOGGED.keys()
    return found


def test_each_step_moves_all_parameters_at_once(watched: tuple[Watcher, Path, str]) -> None:
    if built.library().handle is None:
        pytest.skip(f"no built ops: {built.library().reason}")
    moved = watched[0].moved_at_once
    assert len(moved) == STEPS and min(moved) > 30


def test_tokens_images_and_padding_are_those_of_the_batches(
    watched: tuple[Watcher, Path, str], log: dict[int, dict[str, float]]
) -> None:
    seen = watched[0]
    assert len(seen.tokens) == STEPS and 0 in seen.images and max(seen.images) > 1
    for step, steps in LOGGED.items():
        tokens, images, places = (
            sum(count[one - 1] for one in steps) for count in (seen.tokens, seen.images, seen.places)
        )
        entry = log[step]
        assert 0.05 < entry["padding"] < 0.95
        assert entry["padding"] == pytest.approx(1 - tokens / places)
        assert entry["images_per_second"] == pytest.approx(entry["tokens_per_second"] * images / tokens)
        assert entry["tokens_per_second"] > 1 and 0.01 < entry["memory_gib"] < 100


def test_the_gradients_norm_is_that_before_clipping_of_each_step_that_is_logged_for_its_number(
    watched: tuple[Watcher, Path, str], log: dict[int, dict[str, float]]
) -> None:
    norms = watched[0].norms
    assert len(set(norms)) == STEPS and min(norms) > 1.1 * CLIP
    # Float32 sums of a tensor's squares, in another order: 2e-7 here.
    assert {step: entry.get("grad_norm") for step, entry in log.items()} == {
        2: pytest.approx(norms[1], rel=1e-6),
        4: pytest.approx(norms[3], rel=1e-6),
        5: None,
    }


def test_the_share_of_each_set_is_logged(log: dict[int, dict[str, float]]) -> None:
    shares = [[entry[f"mixture/{name}"] for name in ("train_grounding", "texts")] for entry in log.values()]
    np.testing.assert_allclose(np.sum(shares, axis=1), 1)
    first, second, _ = np.array(shares)
    np.testing.assert_allclose(first * 2 * ROWS + second * (ROWS + 1), [SHOWN, TEXTS])


def test_the_line_of_a_step_has_speed_padding_and_memory(watched: tuple[Watcher, Path, str]) -> None:
    lines = [line for line in watched[2].splitlines() if line.startswith("step ")]
    assert len(lines) == len(LOGGED)
    figures = r"loss \S+  learning_rate \S+  [\d,]+ tokens/s  \S+ images/s  padding \d+%  \S+ GiB"
    for line, step in zip(lines, LOGGED, strict=True):
        assert re.fullmatch(rf"step {step}/{STEPS}  {figures}  \S+ steps/s  \S+ left", line), line


def test_visualdl_has_every_figure(watched: tuple[Watcher, Path, str]) -> None:
    from visualdl import LogReader

    (file,) = watched[1].glob("out/runs/*/vdlrecords*")
    found = set(LogReader(file_path=str(file)).get_tags()["scalar"])
    names = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "images_per_second", "padding", "memory_gib")
    assert {f"train/{name}" for name in (*names, "mixture/texts", "mixture/train_grounding")} <= found


def test_a_run_that_goes_on_with_the_epochs_first_records_tells_their_figures(
    watched: tuple[Watcher, Path, str], tmp_path: Path
) -> None:
    config = json.loads((watched[1] / "config.json").read_text())
    config |= {"output_dir": str(tmp_path / "out"), "save_strategy": "steps", "save_steps": EVERY, "max_steps": EVERY}
    first, _ = finetune(tmp_path, config)
    config |= {"max_steps": 2 * EVERY, "resume_from_checkpoint": str(tmp_path / "out" / f"checkpoint-{EVERY}")}
    again, _ = finetune(tmp_path, {**config, "ignore_data_skip": True, "lr_scheduler_type": "constant"})
    assert again.tokens == first.tokens != watched[0].tokens[EVERY : 2 * EVERY]
    assert logged(tmp_path)[2 * EVERY]["padding"] == pytest.approx(1 - sum(again.tokens) / sum(again.places))
