"""Files of bitsandbytes' 4 bits, scales quantised again or not, and the levels of NF4.

Source: Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", 2023, arXiv:2305.14314, section 3 and
appendix E.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from paddlemix.bounded_json import JsonLimits, parse_json_object, whole_number
from paddlemix.quantization.blocks import Blocks
from paddlemix.quantization.parts import Parts
from paddlemix.quantization.scheme import Scheme

WORDS = "weight"
SCALES, VALUES, SCALES_SCALES, SCALES_VALUES = (
    f"weight.{name}" for name in ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
)
STATES = ("weight.quant_state.bitsandbytes__nf4", "weight.quant_state.bitsandbytes__fp4")
NAMES = (*STATES, SCALES, VALUES, SCALES_SCALES, SCALES_VALUES)
BLOCK = 64
# The quantiles of a normal distribution, scaled to run from -1 to 1, with 0 among them.
LEVELS = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
], np.float32)  # fmt: skip
_LARGEST_STATE = 4096  # bytes
_MOST_NUMBERS = 1 << 40


def shape_of(parts: Parts, scheme: Scheme) -> tuple[int, int]:
    """Return outputs and inputs of a weight."""
    del scheme
    outputs, inputs = _state(parts)["shape"]
    return outputs, inputs


def block_of(parts: Parts, scheme: Scheme) -> int:
    """Return how many numbers share a scale."""
    del scheme
    return int(_state(parts)["blocksize"])


def read(parts: Parts, scheme: Scheme) -> Blocks:
    """Read a weight.

    `weight` uint8[n / 2, 1] holds the codes of the flattened weight, the higher bits first. `absmax` are the scales of
    blocks, which may run over the ends of rows: floats, or codes with scales of their own.

    Args:
        parts: of the layer.
        scheme: of the checkpoint.

    Returns:
        The weight.

    Raises:
        ValueError: a tensor is missing or none of such a weight.
    """
    del scheme
    state = _state(parts)
    outputs, inputs = state["shape"]
    numbers = outputs * inputs
    codes = parts.read(WORDS, (-(-numbers // 2), 1), "uint8").reshape(-1)
    values = parts.read(VALUES, (16,), "float32")
    blocks = math.ceil(numbers / state["blocksize"])
    return Blocks(
        (outputs, inputs), 4, state["blocksize"], (codes >> 4) | (codes << 4), values, _scales(parts, state, blocks)
    )


def _scales(parts: Parts, state: dict[str, Any], blocks: int) -> np.ndarray:
    """Read the scales, float32[blocks]."""
    if SCALES_SCALES not in parts.tensors:
        return parts.read(SCALES, (blocks,), "float32")
    size: Any = state.get("nested_blocksize")
    offset = state.get("nested_offset")
    if not whole_number(size, 1, _MOST_NUMBERS) or not isinstance(offset, float) or not math.isfinite(offset):
        raise parts.damaged(f"its state says `nested_blocksize` {size!r} and `nested_offset` {offset!r:.40}")
    codes = parts.read(SCALES, (blocks,), "uint8")
    values = parts.read(SCALES_VALUES, (256,), "float32")
    scales = parts.read(SCALES_SCALES, (math.ceil(blocks / size),), "float32")
    return values[codes] * np.repeat(scales, size)[:blocks] + np.float32(offset)


def _state(parts: Parts) -> dict[str, Any]:
    """Read what the file says of the weight: its shape, and the sizes of blocks."""
    name = next((name for name in STATES if name in parts.tensors), STATES[0])
    (size,) = parts.shape_of(name, 1)
    if size > _LARGEST_STATE:
        raise parts.damaged(f"{name} has {size} bytes, more than {_LARGEST_STATE}")
    text = parts.read(name, (size,), "uint8").tobytes()
    state = parse_json_object(text, parts.tensors[name].file, JsonLimits(_LARGEST_STATE, 64))
    shape, block = state.get("shape"), state.get("blocksize")
    is_shape = isinstance(shape, list) and len(shape) == 2 and all(whole_number(one, 1, _MOST_NUMBERS) for one in shape)
    if not is_shape or not whole_number(block, 1, _MOST_NUMBERS):
        raise parts.damaged(f"its state says `shape` {shape!r:.60} and `blocksize` {block!r:.40}")
    return state
