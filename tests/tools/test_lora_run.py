"""A fine-tuning run with adapters, from the config to answers, in this process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from paddle.utils import unique_name
from safetensors.numpy import load_file

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.peft.folders import find_folders
from paddlemix.tools import supervised_finetune


@pytest.fixture(scope="module")
def finished(tiny_checkpoint: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a run that has ended."""
    path = tmp_path_factory.mktemp("lora_run") / "config.json"
    sets = {
        part: [{"name": "vqa_dataset", "data_files": str(shapes / f"{part}_vqa.json")}] for part in ("train", "eval")
    }
    lora = {"lora": True, "lora_rank": 4, "lora_dropout": 0.1, "lora_plus_scale": 4.0}
    steps = {"max_steps": 4, "save_steps": 2, "evaluation_strategy": "steps", "eval_steps": 2}
    config = {"model_name_or_path": str(tiny_checkpoint), "dataset": sets, "output_dir": str(path.parent / "out")}
    config |= {"do_train": True, "learning_rate": 5e-3, "per_device_train_batch_size": 4, "report_to": "none"}
    path.write_text(json.dumps(config | lora | steps | {"load_best_model_at_end": True}))
    run(path)
    return path


def run(config: Path, *words: object) -> None:
    # The optimizer's state goes by Paddle's own names of parameters, which count from 0 in a new process.
    with unique_name.guard():
        supervised_finetune.main([str(config), *map(str, words)])


def adapter_in(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "adapter_model.safetensors")


def test_the_output_folder_and_every_checkpoint_hold_the_adapter_alone(finished):
    out = finished.parent / "out"
    folders = [out, out / "checkpoint-2", out / "checkpoint-4"]
    for folder in folders:
        assert (folder / "adapter_config.json").is_file() and (folder / "tokenizer.json").is_file()
        assert not list(folder.glob("model*")) and not list(folder.glob("*model_state*"))
        moved = [array for name, array in adapter_in(folder).items() if "lora_B" in name]
        assert len(moved) == 14 and all(np.abs(array).max() > 0 for array in moved)


def test_the_best_checkpoint_is_what_remains(finished):
    out = finished.parent / "out"
    losses = {
        entry["step"]: entry["eval_loss"]
        for entry in json.loads((out / "trainer_log.json").read_text())
        if "eval_loss" in entry
    }
    best = min((2, 4), key=losses.__getitem__)
    arrays = [adapter_in(folder) for folder in (out, out / f"checkpoint-{best}")]
    assert all(np.array_equal(arrays[0][name], arrays[1][name]) for name in arrays[0])


def test_the_output_folder_stands_for_the_model_with_its_processor(finished, tiny_checkpoint):
    out = finished.parent / "out"
    found = find_folders(out)
    assert (found.model, found.adapter) == (tiny_checkpoint, out)
    model = AutoModelMIX.from_pretrained(out)
    assert not model.training and len(model.adapted_layers) == 14
    assert AutoProcessorMIX.from_pretrained(out).image_processor.max_pixels == 56 * 56


def test_a_resumed_run_ends_with_the_adapter_of_an_uninterrupted_one(finished):
    whole = adapter_in(finished.parent / "out" / "checkpoint-4")
    part = adapter_in(finished.parent / "out" / "checkpoint-2")
    assert not any(np.array_equal(whole[name], part[name]) for name in whole)
    resumed = finished.parent / "resumed"
    last = finished.parent / "out" / "checkpoint-2"
    run(finished, "--output_dir", resumed, "--resume_from_checkpoint", last)
    again = adapter_in(resumed / "checkpoint-4")
    assert again.keys() == whole.keys() and all(np.array_equal(again[name], whole[name]) for name in whole)
