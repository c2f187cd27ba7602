"""The whole tool, as a user starts it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX

TOOL = Path(__file__).parents[2] / "paddlemix" / "tools" / "supervised_finetune.py"


def write_config(path: Path, checkpoint: Path, shapes: Path, **changes: Any) -> Path:
    sets = {
        part: [
            {"name": "chatml_dataset", "data_files": str(shapes / f"{part}_grounding.json")},
            {"name": "vqa_dataset", "data_files": str(shapes / f"{part}_vqa.json")},
            {"name": "coco_caption", "data_files": str(shapes / f"{part}_caption.json")},
        ]
        for part in ("train", "eval")
    }
    config = {
        "model_name_or_path": str(checkpoint),
        "dataset": sets,
        "output_dir": str(path.parent / "out"),
        "do_train": True,
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "learning_rate": 5e-3,
        "save_steps": 2,
        "seed": 0,
        **changes,
    }
    path.write_text(json.dumps(config, indent=2))
    return path


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)


@pytest.fixture(scope="module")
def finished(
    tiny_checkpoint: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run with evaluation, vision tower frozen but for the merger."""
    config = write_config(
        tmp_path_factory.mktemp("run") / "config.json",
        tiny_checkpoint,
        shapes,
        do_eval=True,
        freeze_include=["*visual*"],
        freeze_exclude=["*visual.merger*"],
        cpu_compute_dtype="auto",
    )
    ended = run(config)
    assert ended.returncode == 0, ended.stderr
    return config, ended


def test_the_plan_names_sets_parameters_and_steps_before_training(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    plan = finished[1].stdout
    assert "train: chatml_dataset" in plan and "eval: vqa_dataset" in plan
    assert "tokens a record median" in plan and "of images median 4, max 4" in plan
    assert "steps: 4" in plan and "each on 4 records" in plan
    frozen = {line.split()[0]: line.split()[1::2] for line in plan.splitlines() if " frozen" in line}
    assert frozen["visual.blocks"][0] == "0" and frozen["visual.merger"][1] == "0"


def test_what_is_frozen_stays_bit_equal_and_the_rest_moves(
    finished: tuple[Path, subprocess.CompletedProcess[str]], tiny_checkpoint: Path
) -> None:
    before = load_file(tiny_checkpoint / "model.safetensors")
    after = load_file(finished[0].parent / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        is_frozen = name.startswith("visual.") and not name.startswith("visual.merger.")
        assert np.array_equal(tensor, after[name]) == is_frozen, name


def test_results_are_a_checkpoint_metrics_a_curve_and_a_visualdl_log(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out = finished[0].parent / "out"
    assert AutoModelMIX.from_pretrained(out).config.hidden_size == 32
    assert AutoProcessorMIX.from_pretrained(out).image_processor.max_pixels == 56 * 56
    results = json.loads((out / "all_results.json").read_text())
    assert np.isfinite([results["train_loss"], results["eval_loss"]]).all()
    assert Image.open(out / "loss.png").width > 300
    assert list(out.glob("runs/*/vdlrecords*"))


def test_losses_are_logged_with_their_step(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    log = json.loads((finished[0].parent / "out" / "trainer_log.json").read_text())
    steps = [entry["step"] for entry in log if "loss" in entry]
    assert steps == [1, 2, 3, 4]


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    config, _ = finished
    whole = load_file(config.parent / "out" / "model.safetensors")
    checkpoint = config.parent / "out" / "checkpoint-2"
    assert not all(
        np.array_equal(whole[name], part) for name, part in load_file(checkpoint / "model.safetensors").items()
    )
    ended = run(config, "--output_dir", config.parent / "resumed", "--resume_from_checkpoint", checkpoint)
    assert ended.returncode == 0, ended.stderr
    # What `auto` chose is what both are known by, so that the second took it over.
    began, went_on = (
        json.loads((config.parent / folder / "run.json").read_text())["keys"]
        for folder in ("out/checkpoint-2", "resumed/checkpoint-4")
    )
    assert began["cpu_compute_dtype"] == went_on["cpu_compute_dtype"] in ("float32", "bfloat16")
    resumed = load_file(config.parent / "resumed" / "model.safetensors")
    for name, tensor in whole.items():
        assert np.array_equal(tensor, resumed[name]), name


def test_a_second_run_into_the_same_folder_is_refused_before_anything_is_touched(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out = finished[0].parent / "out"
    before = sorted(path.name for path in out.iterdir())
    ended = run(finished[0])
    assert ended.returncode == 1
    assert "is not empty" in ended.stderr and "Traceback" not in ended.stderr
    assert sorted(path.name for path in out.iterdir()) == before


def test_an_earlier_run_is_kept_where_the_one_that_replaces_it_is_refused(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out = finished[0].parent / "out"
    before = sorted(out.rglob("*"))
    ended = run(finished[0], "--overwrite_output_dir", "true", "--freeze_include", '["*vision*"]')
    assert ended.returncode == 1 and "`freeze_include` ['*vision*'] matches no parameter" in ended.stderr
    assert sorted(out.rglob("*")) == before and out / "checkpoint-2" in before


def test_a_bad_record_ends_the_run_with_its_file_and_index(tiny_checkpoint: Path, shapes: Path, tmp_path: Path) -> None:
    records = [
        {"image": str(shapes / "pictures/train/000000.jpg"), "caption": "A shape."},
        {"image": "missing.jpg", "caption": "A shape."},
    ]
    (tmp_path / "bad.json").write_text(json.dumps(records))
    dataset = {"train": [{"name": "coco_caption", "data_files": str(tmp_path / "bad.json")}]}
    config = write_config(tmp_path / "config.json", tiny_checkpoint, shapes, dataset=dataset)
    ended = run(config)
    assert ended.returncode == 1
    assert "bad.json, record 1" in ended.stderr and "missing.jpg" in ended.stderr
    assert "Traceback" not in ended.stderr and not (tmp_path / "out").exists()


def test_an_unknown_key_and_a_wrong_type_are_told_together_with_their_lines(
    tiny_checkpoint: Path, shapes: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "config.json", tiny_checkpoint, shapes, learning_rat=1e-4, max_length="long")
    ended = run(config)
    lines = config.read_text().splitlines()
    for key in ("learning_rat", "max_length"):
        number = next(i for i, line in enumerate(lines, 1) if f'"{key}":' in line)
        assert f"config.json:{number}" in ended.stderr
    assert ended.returncode == 1 and "learning_rate" in ended.stderr


def test_packs_train_and_evaluate_a_whole_epoch_and_cut_records_are_named(
    tiny_checkpoint: Path, shapes: Path, tmp_path: Path
) -> None:
    records = [{"conversations": [["Count.", " ".join(map(str, range(200)))]]}]
    (tmp_path / "long.json").write_text(json.dumps(records))
    dataset = {
        "train": [
            {"name": "vqa_dataset", "data_files": str(shapes / "train_vqa.json")},
            {"name": "chatml_dataset", "data_files": str(tmp_path / "long.json")},
        ],
        "eval": [{"name": "vqa_dataset", "data_files": str(shapes / "eval_vqa.json")}],
    }
    config = write_config(
        tmp_path / "config.json",
        tiny_checkpoint,
        shapes,
        dataset=dataset,
        mixtoken=True,
        max_length=300,
        on_overlong="truncate_text",
        max_steps=-1,
        num_train_epochs=2,
        per_device_train_batch_size=2,
        do_eval=True,
    )
    ended = run(config)
    assert ended.returncode == 0, ended.stderr
    assert "1 of" in ended.stderr and "long.json, record 0" in ended.stderr and "are cut off its end" in ended.stderr
    packs = int(re.search(r"packs: (\d+) of 300 tokens", ended.stdout)[1])
    log = json.loads((tmp_path / "out" / "trainer_log.json").read_text())
    assert packs > 2 and [entry["step"] for entry in log if "loss" in entry] == list(range(1, 2 * -(-packs // 2) + 1))
    assert np.isfinite(json.loads((tmp_path / "out" / "all_results.json").read_text())["eval_loss"])


def test_a_config_of_another_system_in_yaml_trains_and_intervals_may_be_shares(
    tiny_checkpoint: Path, shapes: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        f"""\
model: {tiny_checkpoint}
stage: sft
dataset:
  train: [{{name: chatml_dataset, data_files: {shapes / "train_grounding.json"}}}]
output_dir: {tmp_path / "out"}
do_train: yes
finetuning_type: lora
lora_target: all
max_steps: 5
save_steps: 0.5  # 3 of 5
logging_steps: 0.4
learning_rate: 1e-3
eval_strategy: no
ddp_timeout: 180000000
report_to: none
"""
    )
    ended = run(config)
    assert ended.returncode == 0, ended.stderr
    assert "`model` is taken as `model_name_or_path`: " in ended.stderr
    assert "`save_steps` is 0.5 of 5 steps: every 3." in ended.stderr
    assert {path.name for path in (tmp_path / "out").glob("checkpoint-*")} == {"checkpoint-3"}
    log = json.loads((tmp_path / "out" / "trainer_log.json").read_text())
    logged = [entry["step"] for entry in log if "loss" in entry]
    assert {2, 4} <= set(logged) and 1 not in logged  # checkpoints and the end are logged besides
