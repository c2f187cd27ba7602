"""Quantising a weight by rounding each number to the nearest code.

Sources: Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", 2023, arXiv:2305.14314 (nf4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from paddlemix.quantization.blocks import Blocks, held_bytes, packed
from paddlemix.quantization.nf4 import BLOCK, LEVELS

Kind = Literal["nf4", "int8", "int4"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# Inputs that share a scale, as in published files.
_GROUP = 128
# Numbers that are rounded at a time, 4 MiB in float32, so that what is computed on the way stays in the cache.
_AT_ONCE = 1 << 20
# A part of so many rows ends where a block of nf4 does, and a byte of two codes, however many inputs there are.
_ROWS = BLOCK


def rounded(weight: np.ndarray, kind: Kind) -> Blocks:
    """Quantise a weight.

    "nf4" is the nearest of 16 levels times the largest magnitude of 64 consecutive numbers, as bitsandbytes computes
    it. "int4" takes 16 equal steps from the least to the largest of 128 inputs (of all where 128 do not divide them),
    0 always among them; "int8" 255 steps to either side of 0.

    Args:
        weight: float32[out, in].
        kind: one of the three.

    Returns:
        The codes.

    Raises:
        ValueError: the weight holds NaN or infinite numbers.
    """
    return rounded_by_rows((weight.shape[0], weight.shape[1]), lambda rows: weight[rows], kind)


def rounded_by_rows(shape: tuple[int, int], read: Callable[[slice], np.ndarray], kind: Kind) -> Blocks:
    """Quantise a weight that is not in memory as a whole; see `rounded`.

    Args:
        shape: outputs and inputs.
        read: gives the rows that it is asked for, float32[rows, in].
        kind: one of the three.

    Returns:
        The codes.

    Raises:
        ValueError: the weight holds NaN or infinite numbers.
    """
    outputs, inputs = shape
    at_once = max(_AT_ONCE // inputs // _ROWS, 1) * _ROWS
    parts = [_part(read(slice(first, min(first + at_once, outputs))), kind) for first in range(0, outputs, at_once)]
    return Blocks(
        shape,
        parts[0].bits,
        parts[0].block,
        np.concatenate([part.codes for part in parts]),
        parts[0].values,
        np.concatenate([part.scales for part in parts]),
        None if parts[0].zeros is None else np.concatenate([part.zeros for part in parts if part.zeros is not None]),
    )


def _part(weight: np.ndarray, kind: Kind) -> Blocks:
    """Quantise rows of a weight float32[rows, in]."""
    if not np.isfinite(weight).all():
        raise ValueError("the weight holds NaN or infinite numbers, which have no code.")
    if kind == "nf4":
        return _nf4(weight)
    rows, inputs = weight.shape
    grouped = weight.reshape(-1, _group(inputs))
    return _int4(grouped, (rows, inputs)) if kind == "int4" else _int8(grouped, (rows, inputs))


def rounded_bytes(outputs: int, inputs: int, kind: Kind) -> int:
    """Count the bytes that a layer holds of what `rounded` makes of a weight.

    Args:
        outputs: of the weight.
        inputs: likewise.
        kind: what becomes of a number.

    Returns:
        Bytes.
    """
    block = BLOCK if kind == "nf4" else _group(inputs)
    return held_bytes((outputs, inputs), 8 if kind == "int8" else 4, block, zeros=kind == "int4", order=False)


def _group(inputs: int) -> int:
    return _GROUP if inputs % _GROUP == 0 else inputs


def _int4(grouped: np.ndarray, shape: tuple[int, int]) -> Blocks:
    least, most = np.minimum(grouped.min(axis=1), 0), np.maximum(grouped.max(axis=1), 0)
    scales = _scales((most - least) / 15)
    zeros = np.rint(-least / scales)
    codes = np.clip(np.rint(grouped / scales[:, None]) + zeros[:, None], 0, 15).astype(np.uint8)
    return Blocks(
        shape, 4, grouped.shape[1], packed(codes.reshape(-1), 4), np.arange(16, dtype=np.float32), scales, zeros
    )


def _int8(grouped: np.ndarray, shape: tuple[int, int]) -> Blocks:
    scales = _scales(np.abs(grouped).max(axis=1) / 127)
    codes = (np.rint(grouped / scales[:, None]) + 128).astype(np.uint8)
    return Blocks(shape, 8, grouped.shape[1], codes.reshape(-1), np.arange(-128, 128, dtype=np.float32), scales)


def _nf4(weight: np.ndarray) -> Blocks:
    flat = weight.reshape(-1)
    blocks = np.zeros([-(-flat.size // BLOCK), BLOCK], np.float32)
    blocks.reshape(-1)[: flat.size] = flat
    scales = np.abs(blocks).max(axis=1)
    relative = blocks / _scales(scales)[:, None]
    codes = np.zeros(blocks.shape, np.uint8)
    # Borders between levels; a number on one goes to the lower level. Comparing all numbers with each of them is
    # several times as fast as searching for each number's place among them.
    for border in (LEVELS[1:] + LEVELS[:-1]) / 2:
        codes += relative > border
    shape = (weight.shape[0], weight.shape[1])
    return Blocks(shape, 4, BLOCK, packed(codes.reshape(-1)[: flat.size], 4), LEVELS, scales)


def _scales(scales: np.ndarray) -> np.ndarray:
    """Let blocks of zeros have a scale that can be divided by."""
    return np.where(scales > 0, scales, 1).astype(np.float32)
