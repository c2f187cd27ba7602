"""The ops that are timed, at the small model's shapes, and how; the same for every library. Needs numpy alone."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

# Name: shapes of the arrays. Linear: x, weight as [in, out]; attention: query, key and value as [B, L, H, D].
CASES: dict[str, list[tuple[int, ...]]] = {
    "linear 1024 x 512 x 1408": [(1024, 512), (512, 1408)],
    "linear 2048 x 256 x 1024": [(2048, 256), (256, 1024)],
    "linear 1 x 512 x 1408": [(1, 512), (512, 1408)],
    "linear 1 x 512 x 32000": [(1, 512), (512, 32000)],
    "causal attention 1024, 8 heads": [(1, 1024, 8, 64)] * 3,
    "causal attention 2 x 512, 8 on 4 heads": [(2, 512, 8, 64), (2, 512, 4, 64), (2, 512, 4, 64)],
    "full attention 2 x 1024, 4 heads": [(2, 1024, 4, 64)] * 3,
    "decode on 600 keys": [(1, 1, 8, 64), (1, 600, 4, 64), (1, 600, 4, 64)],
    "rms_norm": [(1024, 512), (512,)],
    "layer_norm": [(2048, 256), (256,), (256,)],
    "rotary": [(2, 512, 8, 64)],
    "swiglu": [(1024, 1408)] * 2,
    "quick_gelu": [(2048, 1024)],
    "gelu": [(512, 1024)],
    "linear_cross_entropy": [(800, 512), (512, 32000)],
    "linear_cross_entropy, no denormals": [(800, 512), (512, 32000)],
}
VOCABULARY = 32000
# The other's logits have a deviation of 22, so that most probabilities are below 1e-38 times the largest: on Intel's
# processors it took 17 s where denormal numbers were kept, and this one 0.3. It is to take within 1.5 times as long.
SCALES = {"linear_cross_entropy, no denormals": 0.3}
# Products with quantised weights by kind: x, and the weight as [out, in] before it is rounded. Both passes are by x.
QUANTIZED_CASES: dict[str, tuple[str, tuple[int, int], tuple[int, int]]] = {
    f"quantized {kind} {rows} x 512 x 1408": (kind, (rows, 512), (1408, 512))
    for kind in ("int8", "int4", "nf4")
    for rows in (1, 8, 1024)
}
# Cases of images, forward alone: pixels before, and for the resizing width and height after.
IMAGE_CASES = {"resize_bicubic 640 x 480": (480, 640, 3), "patchify 644 x 476": (476, 644, 3)}
RESIZED = 644, 476
# One more token through a decoder block, forward alone. Weights as [in, out], the cache as [B, capacity, G, D].
BLOCK_CASE, BLOCK_TOKENS = "decode_block on 600 keys", 600
BLOCK: dict[str, tuple[int, ...]] = {
    "x": (1, 1, 512),
    "norm": (512,),
    "query": (512, 512),
    "key": (512, 256),
    "value": (512, 256),
    "query_bias": (512,),
    "key_bias": (256,),
    "value_bias": (256,),
    "output": (512, 512),
    "gate": (512, 1408),
    "up": (512, 1408),
    "down": (1408, 512),
    "keys": (1, BLOCK_TOKENS + 1, 4, 64),
    "values": (1, BLOCK_TOKENS + 1, 4, 64),
}
# Steps of AdamW with clipping by the global norm: of what a decoder of eight blocks and its embedding hold, and of its
# adapters of rank 8.
BLOCKS = 8
_WEIGHTS = ("query", "key", "value", "output", "gate", "up", "down")
STEP_CASES: dict[str, list[tuple[int, ...]]] = {
    "adamw, clipped, of 40 M": [
        (VOCABULARY, 512),
        *(BLOCK[name] for name in (*_WEIGHTS, "query_bias", "key_bias", "value_bias", "norm", "norm") * BLOCKS),
    ],
    "adamw, clipped, of adapters": [
        shape for name in _WEIGHTS * BLOCKS for shape in ((BLOCK[name][0], 8), (8, BLOCK[name][1]))
    ],
}
# Qwen2.5-VL's tower, a quarter as wide as published and of two blocks: those of them that attend to whole images. The
# first image ends within windows of 112 x 112 pixels, the second does not.
TOWER_CASES: dict[str, list[int]] = {"tower in windows": [], "tower in whole images": [0, 1]}
TOWER = {"depth": 2, "hidden_size": 320, "out_hidden_size": 512, "intermediate_size": 856, "num_heads": 4}
TOWER_GRIDS = [[1, 34, 30], [1, 16, 32]]


def arrays(name: str) -> list[np.ndarray]:
    """Draw the inputs of a case, float32."""
    rng, scale = np.random.default_rng(0), np.float32(SCALES.get(name, 1))
    return [scale * rng.standard_normal(shape).astype(np.float32) for shape in CASES[name]]


def quantized(name: str) -> tuple[str, np.ndarray, np.ndarray]:
    """Draw x and weight of a product with a quantised weight, float32; the kind comes before them."""
    rng, (kind, *shapes) = np.random.default_rng(7), QUANTIZED_CASES[name]
    x, weight = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    return kind, x, weight


def block() -> dict[str, np.ndarray]:
    """Draw the inputs of the decoder block, float32."""
    rng = np.random.default_rng(4)
    return {name: 0.05 * rng.standard_normal(shape).astype(np.float32) for name, shape in BLOCK.items()}


def step(name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw the parameters of a step and their gradients, float32."""
    rng = np.random.default_rng(6)
    return [tuple(rng.standard_normal((2, *shape), dtype=np.float32)) for shape in STEP_CASES[name]]


def patches() -> np.ndarray:
    """Draw what the tower sees, float32[patches, values]."""
    count = sum(int(np.prod(grid)) for grid in TOWER_GRIDS)
    return np.random.default_rng(5).standard_normal((count, 3 * 2 * 14 * 14)).astype(np.float32)


def image(name: str) -> np.ndarray:
    """Draw the pixels of a case, uint8."""
    return np.random.default_rng(0).integers(0, 256, IMAGE_CASES[name], dtype=np.uint8)


def levels() -> np.ndarray:
    """Compute what each grey level of each channel becomes, float32[3, 256]."""
    return np.random.default_rng(3).standard_normal((3, 256)).astype(np.float32)


def targets() -> np.ndarray:
    """Draw tokens for the head's loss."""
    return np.random.default_rng(1).integers(0, VOCABULARY, CASES["linear_cross_entropy"][0][0])


def angles() -> np.ndarray:
    """Compute radians for each pair of a head, float32[512, 32]."""
    return np.random.default_rng(2).standard_normal((512, 32)).astype(np.float32)


def time_cases(make: Callable[[str], tuple[Callable[[], Any], ...]]) -> None:
    """Time all cases and print them as JSON: name, then seconds of forward, and of forward and backward.

    Args:
        make: gives, for a case, the call of the forward pass without gradients, and where there is one that of both.
    """
    repeats, clock = int(sys.argv[1]), {"wall": time.perf_counter, "cpu": time.process_time}[sys.argv[2]]
    found = {}
    starts = tuple(sys.argv[3:]) or ("",)
    for name in (
        name
        for name in (*CASES, *QUANTIZED_CASES, BLOCK_CASE, *STEP_CASES, *TOWER_CASES, *IMAGE_CASES)
        if name.startswith(starts)
    ):
        found[name] = [_seconds(call, repeats, clock) for call in make(name)]
    json.dump(found, sys.stdout)


def _seconds(call: Callable[[], Any], repeats: int, clock: Callable[[], float]) -> list[float]:
    samples = []
    for _ in range(3 + repeats):
        start = clock()
        call()
        samples.append(clock() - start)
    return samples[3:]
