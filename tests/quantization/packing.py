"""Packs weights as the published formats have them, number by number and so in no way of the package's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Tensors = dict[str, np.ndarray]
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def word(codes: list[int], bits: int) -> int:
    """Put codes into one signed word of 32 bits, the first into the lowest bits."""
    value = sum(int(code) << (bits * place) for place, code in enumerate(codes))
    return value - (1 << 32) if value >= 1 << 31 else value


def words(rows: list[list[list[int]]], bits: int) -> np.ndarray:
    """Put [rows][words][codes] into int32[rows, words]."""
    return np.array([[word(codes, bits) for codes in row] for row in rows], dtype=np.int32)


def in_groups(array: np.ndarray, size: int) -> list[list[int]]:
    return [array[start : start + size].tolist() for start in range(0, len(array), size)]


def steps(weight: np.ndarray, bits: int, group: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Round [out, in] to codes, with float16 scales and zeros [out, groups]."""
    most = (1 << bits) - 1
    grouped = weight.reshape(len(weight), -1, group)
    least, largest = np.minimum(grouped.min(2), 0), np.maximum(grouped.max(2), 0)
    scales = ((largest - least) / most + 1e-6).astype(np.float16)
    zeros = np.clip(np.rint(-least / scales.astype(np.float32)), 1, most)
    wide = scales.astype(np.float32)[:, :, None]
    codes = np.clip(np.rint(grouped / wide) + zeros[:, :, None], 0, most)
    return codes.astype(np.int64).reshape(weight.shape), scales, zeros.astype(np.int64)


def standing_for(codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray, group_of: np.ndarray) -> np.ndarray:
    """Compute the weight float32[out, in] that codes stand for."""
    found = np.empty(codes.shape, np.float32)
    for column, group in enumerate(group_of):
        found[:, column] = (codes[:, column] - zeros[:, group]) * scales[:, group].astype(np.float32)
    return found


def gptq(weight: np.ndarray, *, bits: int, group: int, version: int = 1) -> tuple[Tensors, np.ndarray]:
    """Pack as GPTQ."""
    codes, scales, zeros = steps(weight, bits, group)
    held = 32 // bits
    group_of = np.arange(weight.shape[1]) // group
    stored_zeros = zeros - 1 if version == 1 else zeros
    # [in / p, out], and [groups, out / p].
    rows = [[column[start : start + held].tolist() for column in codes] for start in range(0, codes.shape[1], held)]
    tensors = {
        "qweight": words(rows, bits),
        "qzeros": words([in_groups(stored_zeros[:, one], held) for one in range(zeros.shape[1])], bits),
        "scales": scales.T.copy(),
        "g_idx": group_of.astype(np.int32),
    }
    return tensors, standing_for(codes, scales, zeros, group_of)


def awq(weight: np.ndarray, *, group: int) -> tuple[Tensors, np.ndarray]:
    """Pack as AWQ's gemm."""
    codes, scales, zeros = steps(weight, 4, group)

    def rows_of(array: np.ndarray) -> list[list[list[int]]]:
        return [[[eight[one] for one in AWQ_ORDER] for eight in in_groups(row, 8)] for row in array]

    tensors = {"qweight": words(rows_of(codes.T), 4), "qzeros": words(rows_of(zeros.T), 4), "scales": scales.T.copy()}
    return tensors, standing_for(codes, scales, zeros, np.arange(weight.shape[1]) // group)


@dataclass(frozen=True)
class Packing:
    """A format that tiny models are written in.

    Attributes:
        config: what config.json says.
        pack: gives the tensors of a layer's weight [out, in], and what they stand for.
    """

    config: dict[str, Any]
    pack: Callable[[np.ndarray], tuple[Tensors, np.ndarray]]


GROUP = 16
PACKINGS = {
    "gptq-int4": Packing(
        {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": False},
        lambda weight: gptq(weight, bits=4, group=GROUP),
    ),
    "gptq-int8": Packing(
        {"quant_method": "gptq", "bits": 8, "group_size": -1, "desc_act": False, "sym": False},
        lambda weight: gptq(weight, bits=8, group=weight.shape[1]),
    ),
    "gptq-v2": Packing(
        {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "checkpoint_format": "gptq_v2"},
        lambda weight: gptq(weight, bits=4, group=GROUP, version=2),
    ),
    "awq": Packing(
        {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": True},
        lambda weight: awq(weight, group=GROUP),
    ),
}
