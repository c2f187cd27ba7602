"""Steps that float16 leaves out, and the scale of the loss below which a run ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import paddle
import pytest
from paddle.amp import grad_scaler

from paddlemix.distributed.paddle_seams import silence_updates
from paddlemix.training.callbacks.finite_checks import NonFiniteError, check_losses
from paddlemix.training.callbacks.loss_scale import LossScale


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that takes a step with a scale of the loss and a gradient, and lets the callback look at it."""
    gpu = SimpleNamespace(is_gpu_place=lambda: True)
    monkeypatch.setattr(grad_scaler, "_dygraph_tracer", lambda: SimpleNamespace(_expected_place=gpu))

    def step(scale: float, gradient: float) -> None:
        weight = paddle.create_parameter([1], "float32")
        scaler = paddle.amp.GradScaler(init_loss_scaling=scale)
        silence_updates(scaler)
        with paddle.amp.auto_cast(dtype="float16"):  # does nothing on a CPU, but a scaler wants to have seen it
            loss = (weight * gradient).sum()
        scaler.scale(loss).backward()
        scaler.step(paddle.optimizer.SGD(0.1, parameters=[weight]))
        scaler.update()
        LossScale().on_optimizer_end(None, SimpleNamespace(global_step=6), None, scaler=scaler)

    return step


def test_a_step_that_is_left_out_is_told_of_once_and_one_that_is_taken_is_not(
    step: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    step(1024.0, 1.0)
    LossScale().on_optimizer_end(None, SimpleNamespace(global_step=6), None, scaler=None)
    assert caplog.messages == []
    step(65536.0, float("inf"))
    assert caplog.messages == [
        "step 7: its gradients are too large for float16, so it is left out: weights and learning rate stay as they "
        "are. The loss is multiplied by 32,768 from here on, half of what it was."
    ]
    assert capsys.readouterr().out == ""


def test_a_run_whose_gradients_no_scale_keeps_finite_is_ended(step: Any) -> None:
    step(2.0, float("inf"))
    with pytest.raises(NonFiniteError, match=r"the gradients of step 7 are .* multiplied by no more than 1\. .*`bf16`"):
        step(1.0, float("nan"))


def test_a_loss_that_is_no_number_in_float16_is_told_what_may_have_made_it_one() -> None:
    dataset = SimpleNamespace(sources=lambda draw: ["a.json, record 0"])

    def check(**options: Any) -> str:
        with pytest.raises(NonFiniteError) as stopped:
            check_losses(float("nan"), [paddle.to_tensor(float("nan"))], lambda: [["draw"]], dataset, step=1, **options)
        return str(stopped.value)

    assert "65,504" not in check()
    assert "a.json, record 0" in check(in_float16=True) and "`bf16` in place of `fp16`" in check(in_float16=True)
