"""Gradients that are added up in float32 beside half-precision weights: when, and how the loss's scale leaves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from paddle.amp import grad_scaler
from paddle.distributed.fleet.utils.mix_precision_utils import MixPrecisionLayer, MixPrecisionOptimizer
from safetensors.numpy import load_file

import paddlemix
from paddlemix.configuration import file as config_file
from paddlemix.configuration.degrees import check_degrees
from paddlemix.configuration.problems import ConfigError
from paddlemix.distributed.paddle_seams import unscale_added_gradients
from paddlemix.tools import supervised_finetune

O2 = {"bf16": True, "fp16_opt_level": "O2"}
FP16 = {"fp16": True, "fp16_opt_level": "O2"}
SCALE = 1024.0


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """A function that checks a config of some keys, as on a machine with a GPU."""

    def load(**keys: Any) -> Any:
        config = {
            "model_name_or_path": "some/model",
            "dataset": {"train": [{"name": "chatml_dataset", "data_files": "a.json"}]},
            "output_dir": str(tmp_path / "out"),
            "do_train": True,
            "report_to": "none",
            **keys,
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        return config_file.load_config(str(tmp_path / "config.json"), has_gpu=True)

    return load


@pytest.mark.parametrize(
    ("keys", "adds"),
    [
        ({}, False),
        ({"bf16": True, "gradient_accumulation_steps": 16}, False),  # at O1 weights and gradients are float32
        (O2, False),
        ({**O2, "gradient_accumulation_steps": 2}, True),
        ({**O2, "gradient_accumulation_steps": 2, "amp_master_grad": False}, False),
        ({**O2, "amp_master_grad": True}, True),
        ({**O2, "amp_master_grad": True, "bf16": False}, False),  # a shipped config on a CPU
        (FP16, True),
        # Weights that `dtype` makes half precision at O1.
        ({"bf16": True, "dtype": "bfloat16"}, False),
        ({"bf16": True, "dtype": "bfloat16", "gradient_accumulation_steps": 2}, True),
        ({"fp16": True, "dtype": "float16"}, True),
        ({"dtype": "bfloat16", "gradient_accumulation_steps": 2}, False),  # without autocast PaddleNLP cannot
    ],
)
def test_a_run_adds_in_float32_where_half_precision_would_lose_gradients(load: Any, keys: Any, adds: bool) -> None:
    assert config_file.build_training_arguments(load(**keys)).amp_master_grad is adds


def test_the_shipped_configs_say_so_themselves() -> None:
    configs = [json.loads(path.read_text()) for path in (Path(paddlemix.__file__).parent / "config").rglob("*.json")]
    in_half = [config for config in configs if config.get("fp16_opt_level") == "O2"]
    assert len(in_half) > 4 and all(config["amp_master_grad"] is True for config in in_half)


def test_who_adds_in_half_precision_all_the_same_is_warned(load: Any, caplog: pytest.LogCaptureFixture) -> None:
    load(**O2, amp_master_grad=False)
    assert "added up in half precision" not in caplog.text
    load(**O2, amp_master_grad=False, gradient_accumulation_steps=16)
    assert "`amp_master_grad` is false, so the gradients of 16 forward passes are added up in half" in caplog.text
    load(dtype="bfloat16", gradient_accumulation_steps=16)
    assert "`dtype` is set while `bf16` is false, so the gradients of 16 forward passes are added up" in caplog.text


def test_float16_gradients_are_not_to_be_clipped_by_a_norm_that_is_infinite(load: Any) -> None:
    with pytest.raises(ConfigError, match="norms above 256 become infinite"):
        load(**FP16, amp_master_grad=False)
    with pytest.raises(ConfigError, match="norms above 256 become infinite"):
        load(fp16=True, dtype="float16", amp_master_grad=False)
    load(**FP16, amp_master_grad=False, max_grad_norm=0.0)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"bf16": True, "dtype": "float16"}, '`dtype` is "float16" while `bf16` is true; expected one kind'),
        ({"fp16": True, "dtype": "bfloat16"}, '`dtype` is "bfloat16" while `fp16` is true; expected one kind'),
        ({**O2, "dtype": "float32"}, 'while `fp16_opt_level` is "O2", which holds weights in half precision'),
        ({"dtype": "float16"}, "gradients vanish in float16 where no scale of the loss keeps them large"),
    ],
)
def test_a_precision_of_weights_that_the_run_would_not_keep_is_refused(
    load: Any, keys: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load(**keys)


@pytest.mark.parametrize("stage", ["stage2", "stage3"])
def test_groups_that_share_gradients_are_refused_before_the_model_is_loaded(
    load: Any, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    keys = {**O2, "gradient_accumulation_steps": 2, "sharding": stage, "sharding_parallel_degree": 2}
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "4")
    with pytest.raises(ConfigError, match=r"or `amp_master_grad` to false, which adds them up in bfloat16"):
        check_degrees(load(**keys))
    check_degrees(load(**keys, amp_master_grad=False))
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    check_degrees(load(**keys))


class OnGpu:
    """What makes a scaler take part on a CPU, whose kernels it has."""

    def __init__(self, tracer: Any) -> None:
        self._expected_place = self
        self._tracer = tracer

    def is_gpu_place(self) -> bool:
        return True


@pytest.fixture
def scalers(monkeypatch: pytest.MonkeyPatch) -> None:
    tracer = grad_scaler._dygraph_tracer
    monkeypatch.setattr(grad_scaler, "_dygraph_tracer", lambda: OnGpu(tracer()))


def test_the_scale_is_taken_out_of_added_gradients_and_overflown_ones_are_left_out(scalers: None) -> None:
    paddle.seed(0)
    layer = paddle.nn.Linear(3, 2)
    MixPrecisionLayer(layer, dtype="float16")
    optimizer = MixPrecisionOptimizer(paddle.optimizer.AdamW(1e-2, parameters=layer.parameters()))
    scaler = paddle.amp.GradScaler(init_loss_scaling=SCALE)
    unscale_added_gradients(scaler)
    x = paddle.to_tensor([[1.0, 2.0, 3.0]])

    def step(factor: float) -> np.ndarray:
        with paddle.amp.auto_cast(dtype="float16"):  # does nothing on a CPU, but a scaler wants to have seen it
            loss = (layer(x) * factor).sum()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        gradient = layer.weight.main_grad.numpy().copy()
        optimizer.clear_grad()
        return gradient

    np.testing.assert_array_equal(step(1.0), np.repeat([[1.0], [2.0], [3.0]], 2, axis=1))
    before = layer.weight.numpy().copy()
    step(float("inf"))
    np.testing.assert_array_equal(layer.weight.numpy(), before)
    assert float(scaler._scale) == SCALE / 2
    step(1.0)
    assert np.isfinite(layer.weight.numpy()).all() and not np.array_equal(layer.weight.numpy(), before)


def test_a_run_in_fp16_on_one_card_is_that_without_a_scale(
    scalers: None, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """At O1, where a CPU computes in float32: the scale, 1024, is a power of two and changes no digit."""
    records = [{"conversations": [["Count up.", " ".join(map(str, range(many)))]]} for many in (3, 5, 9, 4)]
    (tmp_path / "records.json").write_text(json.dumps(records))

    def train(name: str, **keys: Any) -> tuple[list[float], dict[str, np.ndarray]]:
        config = {
            "model_name_or_path": str(tiny_checkpoint),
            "dataset": {"train": [{"name": "chatml_dataset", "data_files": str(tmp_path / "records.json")}]},
            "output_dir": str(tmp_path / name),
            "do_train": True,
            "max_steps": 2,
            "gradient_accumulation_steps": 2,
            "max_grad_norm": 0.5,
            "save_strategy": "no",
            "learning_rate": 1e-3,
            "warmup_ratio": 0.0,
            "report_to": "none",
            "skip_memory_metrics": True,
            **keys,
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        supervised_finetune.run(config_file.load_config(str(tmp_path / "config.json"), has_gpu=True))
        log = json.loads((tmp_path / name / "trainer_log.json").read_text())
        norms = [entry["grad_norm"] for entry in log if "grad_norm" in entry]
        return norms, load_file(tmp_path / name / "model.safetensors")

    norms, weights = train("plain")
    scaled_norms, scaled_weights = train("scaled", fp16=True, amp_master_grad=True, scale_loss=SCALE)
    assert min(norms) > 0.5
    np.testing.assert_allclose(scaled_norms, norms, rtol=1e-6)
    for name, array in weights.items():
        np.testing.assert_allclose(scaled_weights[name], array, rtol=0, atol=1e-6, err_msg=name)
