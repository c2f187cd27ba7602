"""AdamW on the threads of the built ops beside Paddle's own, step by step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.optimizer.lr import LambdaDecay
from paddlenlp.utils import AdamWCustom, AdamWMini

from paddlemix.checkpoints.optimizer_state import load_optimizer, save_optimizer
from paddlemix.ops.tensors import built
from paddlemix.training.callbacks import fused_adamw
from paddlemix.training.callbacks.fused_adamw import FusedAdamW
from paddlemix.training.callbacks.gradient_norm import GradientNorm

# Nothing, less than a vector, around one, and more than one thread takes at a time.
SHAPES = [[0], [1], [15], [17], [63], [7, 9], [3, 5, 7], [33_000], [300, 257]]
# What LoRA+ and rates by module multiply the learning rate with.
FACTORS = [1.0, 16.0, 0.1, 1.6]
STEPS, CLIP = 50, 0.5
NEVER, ALWAYS = (lambda: False), (lambda: True)


class Parameters(nn.Layer):
    """Parameters of many sizes, whose gradients are set and not computed."""

    def __init__(self, dtype: str = "float32") -> None:
        super().__init__()
        random = np.random.default_rng(0)
        for place, shape in enumerate(SHAPES):
            start = nn.initializer.Assign(random.standard_normal(shape).astype(np.float32))
            parameter = self.create_parameter(shape, default_initializer=start if 0 not in shape else None)
            parameter.optimize_attr = {"learning_rate": FACTORS[place % len(FACTORS)]}
            self.add_parameter(f"{'bias' if place % 3 == 1 else 'weight'}_{place}", parameter)
        if dtype != "float32":
            self.to(dtype=dtype)

    def receive(self, step: int, size: float = 1.0) -> None:
        """Set the gradients of a step; one parameter gets none at every fourth."""
        random = np.random.default_rng(100 + step)
        for place, parameter in enumerate(self.parameters()):
            numbers = random.standard_normal(parameter.shape).astype(np.float32) * np.float32(size * 10.0 ** (place % 4 - 2))
            parameter.clear_gradient(False)
            if step % 4 != 3 or place != 4:
                parameter.grad = paddle.to_tensor(numbers).astype(parameter.dtype)


class Training:
    """An optimizer as the trainer makes it, with a schedule, decay by name and clipping."""

    def __init__(self, *, fused: bool, clip: Any = CLIP, is_wanted: Callable[[], bool] = NEVER, kind: Any = None,
                 dtype: str = "float32") -> None:
        self.model = Parameters(dtype)
        decaying = {parameter.name for name, parameter in self.model.named_parameters() if "bias" not in name}
        self.rate = LambdaDecay(1e-2, lambda step: 1 - step / (2 * STEPS))
        self.optimizer = (kind or paddle.optimizer.AdamW)(
            self.rate,
            parameters=self.model.parameters(),
            weight_decay=0.1,
            apply_decay_param_fun=decaying.__contains__,
            grad_clip=nn.ClipGradByGlobalNorm(clip) if isinstance(clip, float) else clip,
            multi_precision=dtype != "float32",
        )
        self.norm = GradientNorm(self.optimizer, tensor_parallel_degree=1, sharding_degree=1, is_wanted=is_wanted)
        if fused:
            FusedAdamW(self.norm).take_over(self.optimizer)

    def train(self, steps: range, size: float = 1.0) -> list[float | None]:
        norms = []
        for step in steps:
            self.model.receive(step, size)
            self.optimizer.step()
            self.rate.step()
            norms.append(self.norm.take())
        return norms

    def numbers(self) -> dict[str, np.ndarray]:
        """All parameters and states, by names that do not depend on how many layers were made before."""
        found = {}
        for name, parameter in self.model.named_parameters():
            found[name] = parameter.astype("float32").numpy()
            for state, tensors in self.optimizer._accumulators.items():
                if parameter.name in tensors:
                    found[f"{name}/{state}"] = tensors[parameter.name].numpy()
        return found


@pytest.fixture(autouse=True)
def threads(request: pytest.FixtureRequest):
    """Give the thread count back that a test has changed."""
    before = built.num_threads()
    yield
    built.set_num_threads(before)


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many parameters each call of the built op has moved; without the built ops there is nothing to test."""
    if built.library().handle is None:
        pytest.skip(f"no built ops: {built.library().reason}")
    counts: list[int] = []
    step = fused_adamw.adamw_step

    def count(tensors: Any, **numbers: Any) -> None:
        counts.append(len(tensors.parameters))
        step(tensors, **numbers)

    monkeypatch.setattr(fused_adamw, "adamw_step", count)
    return counts


def assert_close(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], relative: float = 1e-7) -> None:
    """Numbers differ by the rounding of float32, in the size of their tensor's."""
    assert found.keys() == wanted.keys() and len(found) > 3 * len(SHAPES)
    for name, array in wanted.items():
        scale = np.abs(array).max() if array.size else 0.0
        np.testing.assert_allclose(found[name], array, rtol=0, atol=relative * scale, err_msg=name)


def test_x(moved):
    a, b = Training(fused=True), Training(fused=False)
    for step in range(STEPS):
        a.train(range(step, step+1)); b.train(range(step, step+1))
    f, w = a.numbers(), b.numbers()
    for name, array in w.items():
        if array.size:
            print(name, np.abs(f[name]-array).max()/np.abs(array).max(), np.abs((f[name]-array)/np.where(array==0,1,array)).max())
    print(moved[:4])
