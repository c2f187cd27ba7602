"""A budget of what a training step, a prompt and a token make the host wait for, and of what is copied to a card.

What flash attention and the built ops for CUDA need of the host is counted in `test_static_program.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..families import FAMILIES

SCRIPT = Path(__file__).with_name("count_waits.py")
ROOT = SCRIPT.parents[2]
# One more block each, in decoder and tower.
DEEPER = {
    "qwen2_vl": {"num_hidden_layers": 3, "vision_config": {"depth": 3}},
    "qwen2_5_vl": {"num_hidden_layers": 3, "vision_config": {"depth": 3}},
    "qwen": {"num_hidden_layers": 3, "visual": {"layers": 2}},
}
ACCUMULATED, STEPS, TOKENS = 2, 2, 5
# With less and with more of everything: blocks, images, tokens.
CASES: dict[str, dict[str, Any]] = {
    "few": {"per_device_train_batch_size": 1},
    "many": {"per_device_train_batch_size": 3, "dataloader_num_workers": 2, "lora": True, "recompute": True},
}
# The one number of a step that is read before weights move: a loss that is NaN must not spoil them.
LOSS_CHECK = "paddlemix/training/run_trainer.py:check_step_loss"
# Constants are copied once in a process, when they are first asked for.
KEPT = "paddlemix/handover.py:_kept"
HANDED_OVER = "paddlemix/handover.py:_copied_to_card"

each_family = pytest.mark.parametrize("family", DEEPER)


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


@pytest.fixture(scope="module")
def found(
    request: pytest.FixtureRequest, records: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[list[Any]]]:
    """What each case of each family asked for, counted in a process that pretends to have a card."""
    there, files = tmp_path_factory.mktemp("counted"), []
    for case in FAMILIES:
        name, folder = case.model_type, case.folder(request)
        deeper = case.changed_folder(request, there / f"{name}-deeper", DEEPER[name])
        files.append(case_file(there, f"{name}-answer", model=str(folder), records=str(records), tokens=TOKENS))
        for shape, keys in CASES.items():
            config = {
                "model_name_or_path": str(deeper if shape == "many" else folder),
                "dataset": {"train": [{"name": "chatml_dataset", "data_files": str(records)}]},
                "output_dir": str(there / name / shape),
                "do_train": True,
                "max_steps": 1 + STEPS,
                "gradient_accumulation_steps": ACCUMULATED,
                "max_length": 512,
                "logging_steps": 100,
                "save_strategy": "no",
                "report_to": "none",
                **keys,
            }
            path = case_file(there, f"{name}-{shape}-config", **config)
            files.append(case_file(there, f"{name}-{shape}", config=path))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(SCRIPT), *files], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout.splitlines()[-1])


def case_file(folder: Path, name: str, **values: Any) -> str:
    """Write a case, and return the path of its file."""
    (folder / f"{name}.json").write_text(json.dumps(values))
    return str(folder / f"{name}.json")


def of_kind(rows: list[list[Any]], kind: str) -> dict[str, int]:
    return {where: count for one, where, count in rows if one == kind}


@each_family
@pytest.mark.parametrize("shape", CASES)
def test_a_step_waits_for_its_loss_alone(found, family, shape):
    assert of_kind(found[f"{family}-{shape}"], "wait") == {LOSS_CHECK: STEPS}


@each_family
@pytest.mark.parametrize("shape", CASES)
def test_a_micro_batch_is_one_copy_that_nobody_waits_for(found, family, shape):
    rows = found[f"{family}-{shape}"]
    assert of_kind(rows, "handed over") == {HANDED_OVER: ACCUMULATED * STEPS}
    assert set(of_kind(rows, "copy")) <= {KEPT}
    assert of_kind(found[f"{family}-many"], "copy").get(KEPT, 0) == 0, "all are made by now"


@each_family
def test_a_token_waits_for_its_id_alone_and_a_prompt_for_that_of_the_first(found, family):
    rows = found[f"{family}-answer"]
    waits = of_kind(rows, "wait")
    assert sum(waits.values()) == TOKENS and all(where.startswith("paddlemix/generation/") for where in waits)
    # The second copy is of where padding stands, which attention asks for where it is not flash attention.
    assert of_kind(rows, "handed over") == {HANDED_OVER: 2 * TOKENS} and of_kind(rows, "copy") == {}


def test_every_family_is_counted():
    assert {case.model_type for case in FAMILIES} == DEEPER.keys()
