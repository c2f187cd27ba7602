"""Ranks that begin with the same adapters, and train on as one process does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from paddlemix.configuration import file as config_file
from paddlemix.tools import supervised_finetune

from .conftest import ROOT, Launch

TOOL = ROOT / "paddlemix" / "tools" / "supervised_finetune.py"
STEPS = 2


@pytest.mark.parametrize("sharding", ["", "stage1"])
def test_two_ranks_train_on_what_earlier_adapters_made_of_the_base_as_one_process_does(
    tiny_checkpoint: Path, shapes: Path, tmp_path: Path, launch: Launch, sharding: str
) -> None:
    def write(name: str, **keys: Any) -> str:
        records = {"name": "coco_caption", "data_files": str(shapes / "train_caption.json"), "max_samples": 2}
        config = {
            "model_name_or_path": str(tiny_checkpoint),
            "dataset": {"train": [records]},
            "output_dir": str(tmp_path / name),
            "do_train": True,
            "lora": True,
            "lora_dropout": 0.0,
            "max_steps": STEPS,
            "gradient_accumulation_steps": 2,
            "learning_rate": 1e-2,
            # Gradients that are zero but for rounding move nothing by a whole learning rate.
            "adam_epsilon": 1e-2,
            "save_strategy": "no",
            "report_to": "none",
            **keys,
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(config))
        return str(tmp_path / f"{name}.json")

    def run(name: str, **keys: Any) -> None:
        supervised_finetune.run(config_file.load_config(write(name, **keys), has_gpu=False))

    run("first")
    run("second", lora_path=str(tmp_path / "first"))
    adapters = {"lora_path": [str(tmp_path / "first"), str(tmp_path / "second")]}
    run("alone", **adapters)
    launch(TOOL, write("pair", **adapters, gradient_accumulation_steps=1, sharding=sharding), patched=False)
    for file, exactly in (("merged_base/model.safetensors", True), ("adapter_model.safetensors", False)):
        alone, pair = (load_file(tmp_path / name / file) for name in ("alone", "pair"))
        assert alone.keys() == pair.keys()
        for name, expected in alone.items():
            np.testing.assert_allclose(pair[name], expected, atol=0 if exactly else 1e-5, rtol=0, err_msg=name)
    before, after = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("second", "alone"))
    assert max(np.abs(after[name] - before[name]).max() for name in after) > 1e-4
