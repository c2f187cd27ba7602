"""Files of compressed-tensors' format "pack-quantized": weights of 4 or 8 bits, symmetric.

Source of the format: https://github.com/vllm-project/compressed-tensors.
"""

from __future__ import annotations

import numpy as np

from paddlemix.quantization.blocks import Blocks, packed, unpacked
from paddlemix.quantization.parts import Parts
from paddlemix.quantization.scheme import Scheme

WORDS, SCALES, SHAPE, GROUPS, ZEROS = (
    "weight_packed", "weight_scale", "weight_shape", "weight_g_idx", "weight_zero_point",
)  # fmt: skip
NAMES = (WORDS, SCALES, SHAPE, GROUPS, ZEROS)


def shape_of(parts: Parts, scheme: Scheme) -> tuple[int, int]:
    """Return outputs and inputs of a weight, of which the last word of a row may hold fewer."""
    outputs, words = parts.shape_of(WORDS, 2)
    in_word = 32 // scheme.bits
    found = parts.read(SHAPE, (2,), "int64", "int32").tolist()
    if found[0] != outputs or not (words - 1) * in_word < found[1] <= words * in_word:
        raise parts.damaged(f"{SHAPE} says {found}, but {WORDS} is {[outputs, words]}")
    return outputs, int(found[1])


def read(parts: Parts, scheme: Scheme) -> Blocks:
    """Read a weight.

    A word of `weight_packed` int32[out, in / p] holds p inputs, the lowest bits first; half of the range of codes means
    0. `weight_scale` is [out, groups].

    Args:
        parts: of the layer.
        scheme: of the checkpoint.

    Returns:
        The weight; where `weight_g_idx` is in another order than the inputs', the columns are sorted by groups.

    Raises:
        ValueError: a tensor is missing or none of such a weight.
    """
    outputs, inputs = shape_of(parts, scheme)
    size, groups = parts.blocks_along(inputs, scheme.group)
    words = parts.read(WORDS, parts.shape_of(WORDS, 2), "int32")
    scales = parts.read(SCALES, (outputs, groups), "float16", "bfloat16", "float32")
    codes = words.view(np.uint8)
    whole = (codes if scheme.bits == 8 else unpacked(codes))[:, :inputs]
    order = parts.order(GROUPS, inputs, size)
    half = 1 << (scheme.bits - 1)
    return Blocks(
        (outputs, inputs),
        scheme.bits,
        size,
        packed((whole if order is None else whole[:, order]).reshape(-1), scheme.bits),
        np.arange(-half, half, dtype=np.float32),
        scales.astype(np.float32).flatten(),
        order=order,
    )
