"""On two ranks, in stage 1 of sharding: fifty steps in one pass beside Paddle's own, clipped by the norm of both."""

from __future__ import annotations

from typing import Any

import paddlemix  # isort: skip - before Paddle, which it prepares for
import numpy as np
import paddle
import paddle.distributed as dist
from paddle import nn
from paddle.distributed import fleet

from paddlemix.ops.tensors import built
from paddlemix.training.callbacks import fused_adamw
from paddlemix.training.callbacks.fused_adamw import FusedAdamW
from paddlemix.training.callbacks.gradient_norm import GradientNorm

del paddlemix

STEPS, CLIP, WIDTHS = 50, 0.5, (1, 15, 63, 100)


class Beside(nn.Layer):
    """Layers side by side, so that gradients depend on the inputs alone, and no rounding of a step comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.LayerList([nn.Linear(17, width) for width in WIDTHS])

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Compute float32[N, 17] -> float32[N, sum(WIDTHS)]."""
        return paddle.concat([layer(x) for layer in self.layers], -1)


def wrapped(model: nn.Layer) -> tuple[nn.Layer, Any]:
    """The model and its optimizer with what fleet puts round them."""
    decaying = {parameter.name for name, parameter in model.named_parameters() if "bias" not in name}
    optimizer = paddle.optimizer.AdamW(
        1e-3,
        parameters=model.parameters(),
        weight_decay=0.1,
        apply_decay_param_fun=decaying.__contains__,
        grad_clip=nn.ClipGradByGlobalNorm(CLIP),
    )
    return fleet.distributed_model(model), fleet.distributed_optimizer(optimizer)


def train(*, fused: bool) -> tuple[list[np.ndarray], list[float]]:
    paddle.seed(3)
    inner = Beside()
    inner.layers[1].weight.optimize_attr = {"learning_rate": 16.0}
    model, optimizer = wrapped(inner)
    norm = GradientNorm(optimizer, tensor_parallel_degree=1, sharding_degree=2, is_wanted=lambda: True)
    if fused:
        FusedAdamW(norm).take_over(optimizer)
    random, norms = np.random.default_rng(dist.get_rank()), []
    for _ in range(STEPS):
        x = paddle.to_tensor(random.standard_normal([8, 17]).astype(np.float32))
        upstream = paddle.to_tensor(random.standard_normal([8, sum(WIDTHS)]).astype(np.float32))
        (model(x) * upstream).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
        norms.append(norm.take())
    return [parameter.numpy() for parameter in inner.parameters()], norms


def main() -> None:
    library = built.library().handle
    if library is None:
        print("no built ops", flush=True)
        return
    # Its kernels round products before they are added.
    is_plain = library.paddlemix_instruction_set() == b"plain"
    strategy = fleet.DistributedStrategy()
    strategy.hybrid_configs = {"dp_degree": 1, "mp_degree": 1, "pp_degree": 1, "sharding_degree": 2}
    fleet.init(is_collective=True, strategy=strategy)
    moved: list[int] = []
    step = fused_adamw.adamw_step

    def count(tensors: Any, **numbers: Any) -> None:
        moved.append(len(tensors.parameters))
        step(tensors, **numbers)

    fused_adamw.adamw_step = count
    (theirs, expected), before = train(fused=False), len(moved)
    ours, norms = train(fused=True)
    assert before == len(moved) - STEPS and 0 < moved[-1] < len(ours)  # this rank's share
    assert min(norms) > CLIP
    np.testing.assert_allclose(norms, expected, rtol=3e-7)  # Paddle adds squares in float32
    for found, wanted in zip(ours, theirs, strict=True):
        # Biases begin with zero, and are made of steps alone: the rounding of the norm that clips them is in all.
        bound = (1e-7 if wanted.ndim > 1 else 2e-7) * (10 if is_plain else 1)
        assert np.linalg.norm(found - wanted) <= bound * np.linalg.norm(wanted)
    print("one pass moves as Paddle does", flush=True)


if __name__ == "__main__":
    paddle.set_device("cpu")
    main()
