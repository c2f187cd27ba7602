"""The numbers that codes may stand for: a scale and a zero for each group of inputs."""

from __future__ import annotations

import numpy as np

from paddlemix.quantization.blocks import Blocks, packed

_SMALLEST = np.finfo(np.float16).smallest_subnormal


def steps(weights: np.ndarray, bits: int, *, symmetric: bool) -> tuple[np.ndarray, np.ndarray]:
    """Choose scales and zeros that reach from the least to the largest of numbers, 0 always among them.

    Args:
        weights: float[n, ...], which share a scale along the first axis.
        bits: of a code.
        symmetric: whether half of the range of codes means 0.

    Returns:
        Scales and zeros, float[...]; files hold the scales as float16, which they are numbers of.

    Raises:
        ValueError: the weights hold NaN or infinite numbers, or larger ones than float16 can scale.
    """
    least, largest = np.minimum(weights.min(axis=0), 0), np.maximum(weights.max(axis=0), 0)
    if not (np.isfinite(least) & np.isfinite(largest)).all():
        raise ValueError("the weight holds NaN or infinite numbers, which have no code.")
    most = (1 << bits) - 1
    if symmetric:
        largest = np.maximum(-least, largest)
        least = -largest
    with np.errstate(over="ignore"):
        halved = ((largest - least) / most).astype(np.float16)
    if np.isinf(halved).any():
        raise ValueError("the weight holds numbers that are too large for scales of float16.")
    # A group of zeros has a scale that can be divided by.
    scales = np.where(largest > least, np.maximum(halved, _SMALLEST), 1).astype(weights.dtype)
    if symmetric:
        return scales, np.full_like(scales, 1 << (bits - 1))
    return scales, np.clip(np.rint(-least / scales), 0, most)


def nearest(weights: np.ndarray, scales: np.ndarray, zeros: np.ndarray, bits: int) -> np.ndarray:
    """Round numbers to codes.

    Args:
        weights: float[...].
        scales: float[...], of shapes that fit.
        zeros: likewise.
        bits: of a code.

    Returns:
        float[...], whole numbers.
    """
    return np.clip(np.rint(weights / scales) + zeros, 0, (1 << bits) - 1)


def rounded_alone(weight: np.ndarray, bits: int, group: int, *, symmetric: bool) -> Blocks:
    """Round each number of a weight to the nearest of its group.

    Args:
        weight: float32[out, in].
        bits: of a code.
        group: inputs that share a scale.
        symmetric: whether half of the range of codes means 0.

    Returns:
        The weight.

    Raises:
        ValueError: as `steps`.
    """
    outputs, inputs = weight.shape
    grouped = np.ascontiguousarray(weight.T).reshape(-1, group, outputs)
    scales, zeros = steps(grouped.swapaxes(0, 1), bits, symmetric=symmetric)
    codes = nearest(grouped, scales[:, None], zeros[:, None], bits)
    return as_blocks(codes.reshape(inputs, outputs).astype(np.uint8), scales, zeros, bits)


def as_blocks(
    codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray, bits: int, order: np.ndarray | None = None
) -> Blocks:
    """Put what was found of a weight into the form that layers hold.

    Args:
        codes: uint8[in, out], groups of inputs behind one another.
        scales: float[groups, out].
        zeros: likewise.
        bits: of a code.
        order: int64[in], which input each row is for; None for their own order.

    Returns:
        The weight, the inputs of a group in their own order.
    """
    inputs, outputs = codes.shape
    if order is not None:
        grouped = order.reshape(len(scales), -1)
        places = np.argsort(grouped, axis=1) + np.arange(0, inputs, grouped.shape[1])[:, None]
        codes, order = codes[places.reshape(-1)], order[places.reshape(-1)]
        order = None if np.array_equal(order, np.arange(inputs)) else order
    return Blocks(
        (outputs, inputs),
        bits,
        inputs // len(scales),
        packed(np.ascontiguousarray(codes.T).reshape(-1), bits),
        np.arange(1 << bits, dtype=np.float32),
        scales.astype(np.float32).T.flatten(),
        zeros.astype(np.float32).T.flatten(),
        order,
    )
