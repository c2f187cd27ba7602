"""The learning rate of every optimizer step, and the gradients that it goes by."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from paddlenlp.trainer import TrainerCallback

from paddlemix.configuration import file as config_file
from paddlemix.ops.denormals import are_flushed
from paddlemix.training.finetune import Run
from paddlemix.training.sft import SFTTrainer

STEPS, WARM_UP, PEAK = 12, 3, 2e-3
BETA1 = 0.9


class Recorder(TrainerCallback):
    """Keeps what the optimizer is about to apply."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.rates: list[float] = []
        self.gradients: list[dict[str, np.ndarray]] = []
        self.flushed: list[bool] = []

    def on_optimizer_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.rates.append(kwargs["optimizer"].get_lr())
        self.flushed.append(are_flushed())
        self.gradients.append({name: one.grad.numpy().copy() for name, one in self.model.named_parameters()})


@pytest.fixture
def train(tmp_path: Path, tiny_checkpoint: Path, shapes: Path) -> Callable[..., tuple[SFTTrainer, Recorder]]:
    def run(**keys: Any) -> tuple[SFTTrainer, Recorder]:
        config = {
            "model_name_or_path": str(tiny_checkpoint),
            "dataset": {"train": [{"name": "vqa_dataset", "data_files": str(shapes / "train_vqa.json")}]},
            "output_dir": str(tmp_path / "out"),
            "do_train": True,
            "learning_rate": PEAK,
            "save_strategy": "no",
            "report_to": "none",
            "skip_memory_metrics": True,
            **keys,
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        checked = config_file.load_config(str(tmp_path / "config.json"), has_gpu=False)
        made = Run.of(checked)
        records, _ = made.load_datasets()
        args = config_file.build_training_arguments(checked)
        model = made.load_model(args)
        trainer, recorder = SFTTrainer(model, args, records, None, made.processor), Recorder(model)
        trainer.add_callback(recorder)
        trainer.train()
        return trainer, recorder

    return run


def cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


def linear(share: float) -> float:
    return 1 - share


def constant(share: float) -> float:
    return 1.0


@pytest.mark.parametrize("warm_up", [{"warmup_steps": WARM_UP}, {"warmup_ratio": WARM_UP / STEPS}])
@pytest.mark.parametrize(
    ("kind", "falls"), [("cosine", cosine), ("linear", linear), ("constant_with_warmup", constant)]
)
def test_the_rate_rises_in_a_line_and_then_follows_the_formula(
    train: Callable[..., tuple[SFTTrainer, Recorder]],
    kind: str,
    falls: Callable[[float], float],
    warm_up: dict[str, float],
) -> None:
    _, recorder = train(lr_scheduler_type=kind, max_steps=STEPS, gradient_accumulation_steps=2, **warm_up)
    rising = [PEAK * step / WARM_UP for step in range(WARM_UP)]
    falling = [PEAK * falls(step / (STEPS - WARM_UP)) for step in range(STEPS - WARM_UP)]
    assert recorder.rates == pytest.approx(rising + falling, rel=1e-6)


def test_a_constant_rate_is_the_same_in_every_step(train: Callable[..., tuple[SFTTrainer, Recorder]]) -> None:
    _, recorder = train(lr_scheduler_type="constant", max_steps=4)
    assert recorder.rates == [PEAK] * 4


@pytest.mark.parametrize("share", [0.25, 4.0])
def test_gradients_of_all_accumulated_batches_are_clipped_together(
    train: Callable[..., tuple[SFTTrainer, Recorder]], share: float
) -> None:
    keys = {"max_steps": 1, "gradient_accumulation_steps": 3, "lr_scheduler_type": "constant"}
    _, whole = train(**keys, max_grad_norm=0.0)
    norm = math.sqrt(sum(float((gradient.astype(np.float64) ** 2).sum()) for gradient in whole.gradients[0].values()))
    assert norm > 0.1
    trainer, clipped = train(**keys, max_grad_norm=share * norm, overwrite_output_dir=True)
    names = {parameter.name: name for name, parameter in trainer.model.named_parameters()}
    moments = trainer.optimizer._accumulators["moment1"]
    assert len(moments) == len(names) > 30
    for own, moment in moments.items():
        gradient = clipped.gradients[0][names[own]]
        assert np.array_equal(gradient, whole.gradients[0][names[own]])
        # AdamW's first moment after one step is (1 - beta1) times the gradient that it was given.
        expected = (1 - BETA1) * gradient * min(share, 1.0)
        np.testing.assert_allclose(moment.numpy(), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="denormal numbers are flushed on Linux alone")
def test_denormal_numbers_are_0_while_a_run_trains_and_evaluates(
    train: Callable[..., tuple[SFTTrainer, Recorder]],
) -> None:
    trainer, recorder = train(max_steps=1)

    def evaluated() -> None:
        recorder.flushed.append(are_flushed())
        raise KeyError

    with pytest.raises(KeyError):
        trainer.evaluation_loop(SimpleNamespace(dataset=SimpleNamespace(forget_left_out=evaluated)), "evaluation")
    assert recorder.flushed == [True, True] and not are_flushed()
