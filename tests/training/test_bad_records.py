"""Whole runs over records that are bad behind a good header, or become bad while the run goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from paddlemix.configuration import file as config_file
from paddlemix.conversation import RecordError
from paddlemix.tools import supervised_finetune

TOOL = Path(__file__).parents[2] / "paddlemix" / "tools" / "supervised_finetune.py"
RECORDS, CUT = 12, {3, 8}
Start = Callable[..., Path]


def draw(path: Path, seed: int, *, cut: bool = False) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    if cut:
        path.write_bytes(path.read_bytes()[:-1500])


@pytest.fixture
def start(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """A run over images of which two are cut off behind good headers; its folder."""
    monkeypatch.setenv("PADDLEMIX_CACHE", str(tmp_path / "cache"))
    for number in range(RECORDS):
        draw(tmp_path / f"{number}.png", number, cut=number in CUT)
    answers = ["Noise", "A noise of colours", "No"]
    records = [{"image": f"{n}.png", "question": "What?", "answer": answers[n % 3]} for n in range(RECORDS)]
    (tmp_path / "a.json").write_text(json.dumps(records))

    def config_of(out: str, **changes: Any) -> Path:
        sets = [{"name": "vqa_dataset", "data_files": str(tmp_path / "a.json")}]
        config = {
            "model_name_or_path": str(tiny_checkpoint),
            "dataset": {"train": sets, "eval": sets if changes.get("do_eval") else []},
            "output_dir": str(tmp_path / out),
            "do_train": True,
            "num_train_epochs": 2,
            "per_device_train_batch_size": 2,
            "learning_rate": 5e-3,
            "save_steps": 2,
            "report_to": "none",
            "skip_memory_metrics": True,
            "on_bad_record": "skip",
            "seed": 0,
            **changes,
        }
        (tmp_path / f"{out}.config.json").write_text(json.dumps(config))
        return tmp_path / f"{out}.config.json"

    def run(out: str, **changes: Any) -> Path:
        supervised_finetune.run(config_file.load_config(str(config_of(out, **changes)), has_gpu=False))
        return tmp_path / out

    run.config_of = config_of
    return run


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "bad_records.jsonl").read_text("utf-8").splitlines()]


def results_of(out: Path) -> dict[str, float]:
    return json.loads((out / "all_results.json").read_text("utf-8"))


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = (load_file(out / "model.safetensors") for out in (one, other))
    assert len(first) > 30 and [name for name in first if first[name].tobytes() != second[name].tobytes()] == []


@pytest.mark.parametrize("mixtoken", [False, True])
def test_the_run_goes_on_and_tells_of_each_bad_record_once_whatever_the_workers(
    start: Start, mixtoken: bool, caplog: pytest.LogCaptureFixture
) -> None:
    runs = [start(f"w{workers}", dataloader_num_workers=workers, mixtoken=mixtoken) for workers in (0, 2)]
    for out in runs:
        assert {line["index"] for line in lines_of(out)} == CUT and len(lines_of(out)) == 2
        assert all(line["replaced_by"]["index"] not in CUT for line in lines_of(out))
        assert results_of(out)["bad_records"] == 2
    assert caplog.text.count("record 3: image") == 1  # that of the run without workers, of two epochs
    assert "bad records that were replaced by others: 2; " in caplog.text
    assert sorted(map(str, lines_of(runs[0]))) == sorted(map(str, lines_of(runs[1])))
    assert_same_weights(*runs)


def test_raise_ends_the_run_with_the_record(start: Start) -> None:
    with pytest.raises(RecordError, match=r"a\.json, record [38]: image .* is broken or cut off"):
        start("out", on_bad_record="raise")


def test_a_full_check_finds_them_before_the_first_step(start: Start) -> None:
    with pytest.raises(ValueError, match="2 of 12 records cannot be used"):
        start("raises", on_bad_record="raise", check_media="full")
    out = start("skips", check_media="full")
    assert results_of(out)["bad_records"] == 0 and not (out / "bad_records.jsonl").exists()


def test_a_resumed_run_goes_on_as_if_nothing_had_happened_though_files_have_vanished_and_changed(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = start("whole")
    draw(tmp_path / "3.png", 3)  # mended, vanished, of another size: all before the run goes on
    (tmp_path / "1.png").unlink()
    Image.new("RGB", (1500, 30)).save(tmp_path / "5.png")
    resumed = start("out", resume_from_checkpoint=str(whole / "checkpoint-6"))
    assert {1, 5, 8} == {line["index"] for line in lines_of(resumed)}
    assert "1 of the 12 records that the run began with cannot be used any more" in caplog.text
    again = start("again", resume_from_checkpoint=str(whole / "checkpoint-6"))
    assert_same_weights(resumed, again)


def test_a_new_run_leaves_out_what_has_vanished(start: Start, tmp_path: Path) -> None:
    start("first", max_steps=1)
    (tmp_path / "1.png").unlink()
    out = start("second", check_media="full")
    assert results_of(out)["bad_records"] == 0
    assert json.loads((out / "trainer_log.json").read_text())[0]["loss"] > 0


def test_an_evaluation_leaves_them_out_of_loss_and_scores_and_says_how_many(start: Start, tmp_path: Path) -> None:
    keys = {"do_eval": True, "do_train": False, "predict_with_generate": True, "max_new_tokens": 4}
    left = start("left", **keys)
    assert not list(left.glob("*.safetensors")) and not (left / "trainer_log.json").exists()  # nothing was trained
    found = results_of(left)
    assert found["eval_left_out"] == found["eval_answers_left_out"] == 2
    assert found["eval_vqa_questions"] == RECORDS - 2
    assert {(line["index"], line["replaced_by"]) for line in lines_of(left)} == {(number, None) for number in CUT}
    # The loss is that of the good records alone.
    good = start("good", **keys, check_media="full")
    assert "eval_left_out" not in results_of(good) and results_of(good)["eval_answers_left_out"] == 0
    for name in ("eval_loss", "eval_vqa_exact_match", "eval_predictions"):
        assert results_of(good)[name] == pytest.approx(found[name], abs=1e-6)
    with pytest.raises(RecordError, match=r"record [38]: image"):
        start("raises", **keys, on_bad_record="raise")


def test_two_ranks_name_each_record_once_and_train_what_one_trains(start: Start, tmp_path: Path) -> None:
    alone = start("alone", per_device_train_batch_size=4, max_steps=3, dataloader_num_workers=0)
    config = start.config_of("both", max_steps=3, dataloader_num_workers=1)  # type: ignore[attr-defined]
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment |= {"OMP_NUM_THREADS": "1", "PADDLE_DISTRI_BACKEND": "gloo", "PYTHONPATH": str(TOOL.parents[2])}
    launcher = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2"]
    command = [*launcher, "--log_dir", str(tmp_path / "log"), str(TOOL), str(config)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    logs = "\n".join(path.read_text("utf-8", "replace") for path in sorted((tmp_path / "log").glob("workerlog.*")))
    assert ended.returncode == 0, logs[-5000:]
    both = tmp_path / "both"
    assert sorted(map(str, lines_of(both))) == sorted(map(str, lines_of(alone))) and len(lines_of(both)) == 2
    assert all(logs.count(f"record {number}: image") == 1 for number in CUT)
    losses = [[entry["loss"] for entry in json.loads((out / "trainer_log.json").read_text()) if "loss" in entry]
              for out in (alone, both)]  # fmt: skip
    assert len(losses[0]) == 3 and losses[0] == pytest.approx(losses[1], abs=1e-5)
