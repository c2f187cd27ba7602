"""The whole demo, on a few images."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.examples.demo import compare_qlora, run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    output = tmp_path_factory.mktemp("demo") / "out"
    words = [
        sys.executable,
        str(ROOT / run.DEMO / "run.py"),
        "--output_dir",
        str(output),
        "--train",
        "64",  # fewer may leave a record file empty
        "--eval",
        "4",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(words, capture_output=True, text=True, env=environment, check=False, timeout=600)
    assert ended.returncode == 0, ended.stderr
    return output, ended.stdout


def test_it_leaves_a_model_metrics_a_curve_an_image_and_a_log(finished: tuple[Path, str]) -> None:
    output, _ = finished
    AutoModelMIX.from_pretrained(output / "model")
    AutoProcessorMIX.from_pretrained(output / "model")
    assert Image.open(output / "loss.png").width > 300
    assert Image.open(output / "pred.jpg").size == (224, 224)
    assert list((output / "visualdl" / "model").glob("vdlrecords*"))


def test_it_leaves_an_adapter_and_the_model_that_it_was_merged_into(finished: tuple[Path, str]) -> None:
    output, _ = finished
    base = AutoModelMIX.from_pretrained(ROOT / run.BASE_MODEL).state_dict()
    merged = AutoModelMIX.from_pretrained(output / "merged").state_dict()
    changed = {name for name in base if (base[name] != merged[name]).any()}
    assert merged.keys() == base.keys() and changed
    assert all(name.startswith("model.layers.") and "_proj" in name for name in changed)
    assert (output / "adapter" / "adapter_model.safetensors").is_file()
    assert Image.open(output / "lora" / "pred.jpg").size == (224, 224)


def test_metrics_hold_the_scores_before_and_after_on_the_same_records(finished: tuple[Path, str]) -> None:
    metrics = json.loads((finished[0] / "metrics.json").read_text())
    for part in ("before", "after"):
        assert metrics[part]["grounding"]["questions"] == metrics[part]["vqa"]["questions"] == 4
        assert 0 <= metrics[part]["grounding"]["grounding_accuracy@0.5"] <= 1
    assert metrics["seed"] == 0 and metrics["seconds"] > 0


def test_every_step_shows_a_command_that_can_be_repeated(finished: tuple[Path, str]) -> None:
    commands = re.findall(r"^\$ (?:\w+=\S+ )*python (.*)", finished[1], re.M)
    assert len(commands) == run.STEPS == 8
    assert all((ROOT / command.split()[0]).is_file() for command in commands)


def test_a_failing_step_ends_the_demo_with_its_name() -> None:
    with pytest.raises(SystemExit, match=r"step 3 \(fine-tune\) ended with code 2"):
        run.step(3, "fine-tune", ["-c", "raise SystemExit(2)"])


def test_gains_are_counted_from_the_base_in_float32(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    losses = {"base": 3.0, "coded_base": 3.5, "lora": 1.0, "qlora": 1.1}
    for name, loss in losses.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "all_results.json").write_text(json.dumps({"eval_loss": loss}))
    compare_qlora.compare(tmp_path, {name: compare_qlora.held_out_loss(tmp_path / name) for name in losses})
    said = capsys.readouterr().out
    assert "Q-LoRA has 0.950 of LoRA's gain" in said and re.search(r"Q-LoRA on int4 +3\.5000 +1\.1000 +1\.9000", said)
    assert json.loads((tmp_path / compare_qlora.RESULTS_FILE).read_text())["ratio"] == pytest.approx(0.95)
    compare_qlora.compare(tmp_path, losses | {"lora": 3.2})
    assert "LoRA has gained nothing" in capsys.readouterr().out


def test_both_trainings_differ_in_what_holds_the_base_alone() -> None:
    lora, qlora = (
        json.loads((ROOT / path).read_text("utf-8")) for path in (run.LORA_CONFIG, compare_qlora.QLORA_CONFIG)
    )
    assert qlora.pop("quantize") == "int4"
    assert {key for key in lora if lora[key] != qlora[key]} == {
        "output_dir",
        "logging_dir",
    } and lora.keys() == qlora.keys()


def test_the_base_model_is_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in (ROOT / run.BASE_MODEL).iterdir()) <= 12 * 2**20
