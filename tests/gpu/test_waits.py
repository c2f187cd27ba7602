"""A budget of what a training step, a prompt and a token make the host wait for, and of what is copied to a card.

What flash attention and the built ops for CUDA need of the host is counted in `test_static_program.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ..families import FAMILIES, FamilyCase, changed_values, each_family

SCRIPT = Path(__file__).with_name("count_waits.py")
ROOT = SCRIPT.parents[2]
# One more block each, in decoder and tower.
DEEPER = {
    "qwen2_vl": {"num_hidden_layers": 3, "vision_config": {"depth": 3}},
    "qwen2_5_vl": {"num_hidden_layers": 3, "vision_config": {"depth": 3}},
    "qwen": {"num_hidden_layers": 3, "visual": {"layers": 2}},
}
ACCUMULATED, STEPS, TOKENS = 2, 2, 5
# Batches of one record and of three, text alone among them in the first.
CASES: dict[str, dict[str, Any]] = {
    "few": {"per_device_train_batch_size": 1},
    "many": {"per_device_train_batch_size": 3, "num_workers": 2},
    "lora": {"per_device_train_batch_size": 2, "lora": True, "recompute": True},
}


@pytest.fixture(scope="module")
def records(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records with an image each, and some of text alone."""
    shown = json.loads((shapes / "train_grounding.json").read_text("utf-8"))[:16]
    for record in shown:
        for turn in record["conversations"]:
            turn["value"] = turn["value"].replace("<img>", f"<img>{shapes}/")
    texts = [{"conversations": [["Count up.", "1 2 3"]]}] * 6
    file = tmp_path_factory.mktemp("waits") / "records.json"
    file.write_text(json.dumps([*shown, *texts]), "utf-8")
    return file


@cache
def counted(family: str, folder: Path, deeper: Path, records: Path, there: Path) -> dict[str, list[list[Any]]]:
    """Count in a process of its own, which pretends to have a card."""
    files = []
    for name, keys in CASES.items():
        keys = dict(keys)
        workers = keys.pop("num_workers", 0)
        config = {
            "model_name_or_path": str(deeper if name == "many" else folder),
            "dataset": {"train": [{"name": "chatml_dataset", "data_files": str(records)}]},
            "output_dir": str(there / family / name),
            "do_train": True,
            "max_steps": 1 + STEPS,
            "gradient_accumulation_steps": ACCUMULATED,
            "dataloader_num_workers": workers,
            "max_length": 512,
            "logging_steps": 100,
            "logging_first_step": False,
            "save_strategy": "no",
            "report_to": "none",
            **keys,
        }
        path = there / f"{family}-{name}.config"
        path.write_text(json.dumps(config))
        files.append(case_file(there / f"{name}.json", config=str(path)))
    files.append(
        case_file(there / "answer.json", model=str(folder), records=str(records), tokens=TOKENS),
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(SCRIPT), *files], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout.splitlines()[-1])


def case_file(path: Path, **values: Any) -> str:
    path.write_text(json.dumps(values))
    return str(path)


@pytest.fixture
def found(
    case: FamilyCase, request: pytest.FixtureRequest, records: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[list[Any]]]:
    folder = case.folder(request)
    there = tmp_path_factory.getbasetemp() / f"waits-{case.model_type}"
    there.mkdir(exist_ok=True)
    return counted(case.model_type, folder, deeper_checkpoint(folder, DEEPER[case.model_type]), records, there)


@cache
def deeper_checkpoint(folder: Path) -> Path:
    ...


def of_kind(rows: list[list[Any]], kind: str) -> dict[str, int]:
    return {where: count for one, where, count in rows if one == kind}
