"""paddlemix's ops, or with PADDLEMIX_OPS=reference Paddle's, and numpy's on images.

python ops_paddle_side.py REPEATS CLOCK [OP ...]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import paddlemix  # noqa: F401  it settles how Paddle computes

# isort: split
import numpy as np
import paddle
from ops_cases import (
    BLOCK_CASE,
    BLOCK_TOKENS,
    IMAGE_CASES,
    QUANTIZED_CASES,
    RESIZED,
    STEP_CASES,
    TOWER,
    TOWER_CASES,
    TOWER_GRIDS,
    angles,
    arrays,
    block,
    image,
    levels,
    patches,
    quantized,
    step,
    targets,
    time_cases,
)

from paddlemix import ops
from paddlemix.quantization.rounding import rounded


def make(name: str):
    """Make the calls of a case: forward, and both passes where there are two."""
    if name in IMAGE_CASES:
        return (IMAGE_OPS[name.split()[0]](image(name)),)
    if name == BLOCK_CASE:
        return (decode_block(),)
    if name in STEP_CASES:
        return (adamw(name),)
    if name in TOWER_CASES:
        return tower(TOWER_CASES[name])
    if name in QUANTIZED_CASES:
        kind, x, weight = quantized(name)
        codes = rounded(weight, kind).weight()
        return passes(lambda x: ops.quantized_linear(x, codes), [paddle.to_tensor(x, stop_gradient=False)])
    tensors = [paddle.to_tensor(array, stop_gradient=False) for array in arrays(name)]
    return passes(OPS[next(key for key in OPS if name.startswith(key))], tensors)


def passes(op: Callable[..., paddle.Tensor], tensors: list[paddle.Tensor]):
    """Make the calls of an op: forward, and forward and backward."""
    with paddle.no_grad():
        upstream = paddle.ones_like(op(*tensors))

    def forward() -> None:
        with paddle.no_grad():
            op(*tensors)

    def both() -> None:
        op(*tensors).backward(upstream)
        for tensor in tensors:
            tensor.clear_gradient(False)

    return forward, both


def tower(whole: list[int]):
    """Run Qwen2.5-VL's tower, of which the blocks `whole` attend to whole images."""
    from paddlemix.models.qwen2_5_vl.config import Qwen25VLVisionConfig
    from paddlemix.models.qwen2_5_vl.vision import Qwen25VLVisionTower

    model = Qwen25VLVisionTower(Qwen25VLVisionConfig(**TOWER, fullatt_block_indexes=tuple(whole)))
    seen = paddle.to_tensor(patches()), paddle.to_tensor(TOWER_GRIDS)

    def both() -> None:
        model(*seen).sum().backward()
        model.clear_gradients()

    return paddle.no_grad()(lambda: model(*seen)), both


def adamw(name: str):
    """Take a step as training does, with gradients that stay."""
    from paddlemix.training.callbacks.fused_adamw import FusedAdamW
    from paddlemix.training.callbacks.gradient_norm import GradientNorm

    layer = paddle.nn.ParameterList()
    for array, gradient in step(name):
        start = paddle.nn.initializer.Assign(array)
        parameter = layer.create_parameter(array.shape, default_initializer=start)
        parameter.grad = paddle.to_tensor(gradient)
        layer.append(parameter)
    clip = paddle.nn.ClipGradByGlobalNorm(1.0)
    optimizer = paddle.optimizer.AdamW(1e-4, parameters=layer.parameters(), grad_clip=clip)
    norm = GradientNorm(optimizer, tensor_parallel_degree=1, sharding_degree=1, is_wanted=lambda: False)
    FusedAdamW(norm).take_over(optimizer)
    return optimizer.step


def decode_block():
    """Take a token through a decoder block; its place in the cache is written anew at each call."""
    part = {name: paddle.to_tensor(array) for name, array in block().items()}
    names = ("query", "key", "value")
    projections, biases = tuple(part[name] for name in names), tuple(part[f"{name}_bias"] for name in names)
    others = (part[name] for name in ("output", "norm", "gate", "up", "down"))
    held = [ops.HeldBlock(ops.BlockWeights(part["norm"], projections, biases, *others, 1e-6))]
    rotary = COS[:1, :1], SIN[:1, :1]
    cache = [part["keys"]], [part["values"]]
    return paddle.no_grad()(lambda: ops.decode_blocks(part["x"], held, rotary, rotary, *cache, BLOCK_TOKENS))


COS, SIN = (paddle.to_tensor(np.stack([turn(angles())] * 2)) for turn in (np.cos, np.sin))
TARGETS, CAUSAL = paddle.to_tensor(targets()), ops.CausalMask()
OPS = {
    "linear_cross": lambda h, w: ops.linear_cross_entropy(h, w, TARGETS),
    "linear": ops.linear,
    "causal": lambda q, k, v: ops.attention(q, k, v, CAUSAL),
    "full": ops.attention,
    "decode": ops.attention,
    "rms_norm": lambda x, w: ops.rms_norm(x, w, 1e-6),
    "layer_norm": lambda x, w, b: ops.layer_norm(x, w, b, 1e-6),
    "rotary": lambda x: ops.apply_rotary(x, COS, SIN),
    "swiglu": ops.swiglu,
    "quick_gelu": ops.quick_gelu,
    "gelu": ops.gelu,
}
IMAGE_OPS = {
    "resize_bicubic": lambda pixels: partial(ops.resize_bicubic, pixels, *RESIZED),
    "patchify": lambda pixels: partial(ops.patchify, [pixels] * 2, levels(), patch_size=14, merge_size=2),
}

if __name__ == "__main__":
    time_cases(make)
