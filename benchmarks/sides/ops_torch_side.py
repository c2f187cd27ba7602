"""The same ops in PyTorch, as transformers calls them: `python ops_torch_side.py REPEATS CLOCK [OP ...]`."""

from __future__ import annotations

import os
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
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
    patches,
    quantized,
    step,
    targets,
    time_cases,
)
from torch_weight_only import WEIGHT_ONLY


def make(name: str):
    """Make the calls of a case: forward, and both passes where there are two."""
    if name in IMAGE_CASES:
        return (partial(IMAGE_OPS[name.split()[0]], torch.from_numpy(image(name)).permute(2, 0, 1)),)
    if name == BLOCK_CASE:
        return (decode_block(),)
    if name in STEP_CASES:
        return (adamw(name),)
    if name in TOWER_CASES:
        return tower(TOWER_CASES[name])
    if name in QUANTIZED_CASES:
        return weight_only(*quantized(name))
    tensors = [torch.from_numpy(array).requires_grad_() for array in arrays(name)]
    if name.startswith("linear"):  # PyTorch holds weights as [out, in]
        tensors[1] = tensors[1].detach().t().contiguous().requires_grad_()
    op = OPS[next(key for key in OPS if name.startswith(key))]
    with torch.no_grad():
        upstream = torch.ones_like(op(*tensors))

    def forward() -> None:
        with torch.no_grad():
            op(*tensors)

    def both() -> None:
        op(*tensors).backward(upstream)
        for tensor in tensors:
            tensor.grad = None

    return forward, both


def weight_only(kind: str, x: np.ndarray, weight: np.ndarray):
    """Multiply by torch's own product with a quantised weight, where it has one; it has no backward pass."""
    if kind not in WEIGHT_ONLY:
        return ()
    plain = torch.nn.Linear(*reversed(weight.shape), bias=False)
    plain.weight.data = torch.from_numpy(weight)
    layer, rows = WEIGHT_ONLY[kind](plain), torch.from_numpy(x)
    return (torch.inference_mode()(lambda: layer(rows)),)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: bool = False) -> torch.Tensor:
    """Compute scaled dot product attention of [B, L, H, D]."""
    heads_first = (x.transpose(1, 2) for x in (query, key, value))
    grouped = query.shape[2] != key.shape[2]
    return F.scaled_dot_product_attention(*heads_first, is_causal=causal, enable_gqa=grouped).transpose(1, 2)


def tower(whole: list[int]):
    """Run transformers' tower of Qwen2.5-VL, of which the blocks `whole` attend to whole images."""
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as reference

    config = reference.Qwen2_5_VLVisionConfig(**TOWER, fullatt_block_indexes=whole, attn_implementation="sdpa")
    model = reference.Qwen2_5_VisionTransformerPretrainedModel(config)
    seen = torch.from_numpy(patches()), torch.tensor(TOWER_GRIDS)

    def both() -> None:
        model(*seen).sum().backward()
        model.zero_grad()

    return torch.no_grad()(lambda: model(*seen)), both


def adamw(name: str):
    """Take a step as transformers' Trainer does, with gradients that stay."""
    parameters = []
    for array, gradient in step(name):
        parameters.append(torch.from_numpy(array).requires_grad_())
        parameters[-1].grad = torch.from_numpy(gradient)
    optimizer = torch.optim.AdamW(parameters, 1e-4, fused=True)

    def call() -> None:
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return call


def decode_block():
    """Take a token through a decoder block, op by op."""
    part = {name: torch.from_numpy(array) for name, array in block().items()}
    for name in ("query", "key", "value", "output", "gate", "up", "down"):
        part[name] = part[name].t().contiguous()

    @torch.inference_mode()
    def call() -> torch.Tensor:
        x, norm = part["x"], part["norm"]
        normed = F.rms_norm(x, norm.shape, norm, 1e-6)
        query, key, value = (
            F.linear(normed, part[name], part[f"{name}_bias"]).reshape(1, 1, -1, 64)
            for name in ("query", "key", "value")
        )
        part["keys"][:, BLOCK_TOKENS:] = rotate(key, COS[:1], SIN[:1])
        part["values"][:, BLOCK_TOKENS:] = value
        mixed = attend(rotate(query, COS[:1], SIN[:1]), part["keys"], part["values"])
        total = x + F.linear(mixed.reshape(1, 1, -1), part["output"])
        normed = F.rms_norm(total, norm.shape, norm, 1e-6)
        return total + F.linear(F.silu(F.linear(normed, part["gate"])) * F.linear(normed, part["up"]), part["down"])

    return call


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn the pairs of every head."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def resize(pixels: torch.Tensor) -> torch.Tensor:
    """Resize, channels first; PyTorch's weights have 16 bits."""
    return F.interpolate(pixels[None], size=RESIZED[::-1], mode="bicubic", antialias=True)


def cut(pixels: torch.Tensor) -> torch.Tensor:
    """Cut into patches as transformers' fast processor does it."""
    normal = (pixels - MEAN) / STD
    cells = normal.expand(2, -1, -1, -1).reshape(2, 3, RESIZED[1] // 28, 2, 14, RESIZED[0] // 28, 2, 14)
    return cells.permute(2, 5, 3, 6, 1, 0, 4, 7).reshape(-1, 1176)


COS, SIN = (torch.from_numpy(angles()).repeat(1, 2).unsqueeze(1) for _ in range(2))
COS, SIN = COS.cos(), SIN.sin()
TARGETS = torch.from_numpy(targets())
OPS = {
    "linear_cross": lambda h, w: F.cross_entropy(F.linear(h, w), TARGETS),
    "linear": F.linear,
    "causal": lambda q, k, v: attend(q, k, v, causal=True),
    "full": attend,
    "decode": attend,
    "rms_norm": lambda x, w: F.rms_norm(x, w.shape, w, 1e-6),
    "layer_norm": lambda x, w, b: F.layer_norm(x, w.shape, w, b, 1e-6),
    "rotary": lambda x: rotate(x, COS, SIN),
    "swiglu": lambda x, y: F.silu(x) * y,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "gelu": F.gelu,
}
IMAGE_OPS = {"resize_bicubic": resize, "patchify": cut}
MEAN, STD = torch.tensor([[123.0, 117, 104], [68.5, 66.6, 70.3]])[..., None, None]

if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    time_cases(make)
