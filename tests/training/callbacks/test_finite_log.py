"""Norms of gradients in half precision, and figures that JSON has no number for."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest
from paddle.amp import grad_scaler

from paddlemix.configuration import file as config_file
from paddlemix.distributed import paddle_seams
from paddlemix.tools import supervised_finetune
from paddlemix.training.callbacks.early_stopping import note_best
from paddlemix.training.callbacks.finite_log import FiniteLog
from paddlemix.training.callbacks.gradient_norm import GradientNorm


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("piece", [7, 2**24])
def test_the_norm_of_gradients_is_computed_in_float32(dtype: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paddle_seams, "PIECE", piece)
    numbers = paddle.to_tensor(np.random.default_rng(0).standard_normal([5, 9]).astype("float32") * 1000).astype(dtype)
    layer = paddle.nn.Linear(2, 2)
    optimizer = paddle.optimizer.AdamW(parameters=layer.parameters())
    norm = GradientNorm(optimizer, tensor_parallel_degree=1, sharding_degree=1, is_wanted=lambda: True)
    norm([(layer.weight, numbers), (layer.bias, numbers)])
    wanted = np.linalg.norm(numbers.astype("float32").numpy().astype(np.float64)) * 2**0.5
    assert wanted > 256
    assert norm.take() == pytest.approx(wanted, rel=1e-6)


def test_a_figure_without_a_number_in_json_is_null_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    log = FiniteLog()
    with caplog.at_level(logging.WARNING):
        entries = [log.entry({"loss": 1.5, "grad_norm": value}, 3) for value in (np.inf, np.float32("nan"), 2.0)]
        log.entry({"eval_loss": float("nan")}, 4)
    assert entries == [
        {"loss": 1.5, "grad_norm": None},
        {"loss": 1.5, "grad_norm": None},
        {"loss": 1.5, "grad_norm": 2},
    ]
    assert [record.args[:3] for record in caplog.records] == [
        (3, "grad_norm", np.inf),
        (4, "eval_loss", pytest.approx(np.nan, nan_ok=True)),
    ]


def test_no_checkpoint_is_the_best_by_a_metric_that_is_no_number() -> None:
    state = SimpleNamespace(best_metric=None, best_model_checkpoint=None)
    args = SimpleNamespace(metric_for_best_model="loss", greater_is_better=False)
    for step, loss in enumerate([float("nan"), 2.0, float("-inf"), 3.0]):
        note_best(state, args, {"eval_loss": loss}, Path(f"checkpoint-{step}"))
    assert (state.best_metric, state.best_model_checkpoint) == (2.0, "checkpoint-1")


def test_a_run_whose_gradients_overflow_is_saved_and_goes_on(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With a scale of the loss at which gradients become infinite."""
    gpu = SimpleNamespace(is_gpu_place=lambda: True)
    monkeypatch.setattr(grad_scaler, "_dygraph_tracer", lambda: SimpleNamespace(_expected_place=gpu))
    records = [{"conversations": [["Count up.", " ".join(map(str, range(many)))]]} for many in (3, 5, 9, 4)]
    (tmp_path / "records.json").write_text(json.dumps(records))
    config = {
        "model_name_or_path": str(tiny_checkpoint),
        "dataset": {"train": [{"name": "chatml_dataset", "data_files": str(tmp_path / "records.json")}]},
        "output_dir": str(tmp_path / "out"),
        "do_train": True,
        "fp16": True,
        "amp_master_grad": True,
        "scale_loss": 2.0**127,
        "max_steps": 4,
        "save_steps": 2,
        "report_to": "visualdl",
        "skip_memory_metrics": True,
    }

    def run(**keys: Any) -> list[dict[str, Any]]:
        (tmp_path / "config.json").write_text(json.dumps({**config, **keys}))
        supervised_finetune.run(config_file.load_config(str(tmp_path / "config.json"), has_gpu=True))
        return [entry for entry in strict(tmp_path / "out" / "trainer_log.json") if "loss" in entry]

    log = run()
    norms = [entry["grad_norm"] for entry in log]
    assert None in norms[:2] and len(norms) == 4  # in the log of the first checkpoint
    assert caplog.text.count("`grad_norm` is") == 1
    for file in (tmp_path / "out" / "checkpoint-2").glob("*.json"):
        strict(file)
    assert np.max(strict(tmp_path / "out" / "checkpoint-4" / "resume_state.json")["scaler"]["scale"]) < 2.0**127
    assert len(run(resume_from_checkpoint=True, max_steps=5)) == 5


def strict(file: Path) -> Any:
    """Read JSON as others do, without Python's words for what it has no number for."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{file} holds {word}")

    return json.loads(file.read_text("utf-8"), parse_constant=refuse)
