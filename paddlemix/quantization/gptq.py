"""GPTQ's files, of versions 1 and 2.

Source of the method: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", 2022, arXiv:2210.17323.
"""

from __future__ import annotations

import numpy as np

from paddlemix.quantization.blocks import Blocks, packed, unpacked
from paddlemix.quantization.parts import Parts
from paddlemix.quantization.scheme import Scheme

WORDS, ZEROS, SCALES, GROUPS = "qweight", "qzeros", "scales", "g_idx"
NAMES = (WORDS, ZEROS, SCALES, GROUPS)


def shape_of(parts: Parts, scheme: Scheme) -> tuple[int, int]:
    """Return outputs and inputs of a weight."""
    rows, outputs = parts.shape_of(WORDS, 2)
    return outputs, rows * (32 // scheme.bits)


def read(parts: Parts, scheme: Scheme) -> Blocks:
    """Read a weight.

    A word of `qweight` int32[in / p, out] holds p inputs, of `qzeros` int32[groups, out / p] p outputs, the lowest bits
    first. `g_idx` int32[in] tells the group of each input. Version 1 stores zeros less 1.

    Args:
        parts: of the layer.
        scheme: of the checkpoint.

    Returns:
        The weight; where `g_idx` is in another order than the inputs', the columns are sorted by groups.

    Raises:
        ValueError: a tensor is missing or none of such a weight.
    """
    outputs, inputs = shape_of(parts, scheme)
    size, groups = parts.blocks_along(inputs, scheme.group)
    if outputs * scheme.bits % 32:
        raise parts.damaged(f"{outputs} outputs do not fill words of 32 bits")
    words = parts.read(WORDS, (inputs * scheme.bits // 32, outputs), "int32")
    zeros = parts.read(ZEROS, (groups, outputs * scheme.bits // 32), "int32")
    scales = parts.read(SCALES, (groups, outputs), "float16", "bfloat16", "float32")
    codes = _bytes_by_output(words)
    order = parts.order(GROUPS, inputs, size)
    if order is not None:
        whole = codes if scheme.bits == 8 else unpacked(codes)
        codes = packed(whole[:, order].reshape(-1), scheme.bits)
    return Blocks(
        (outputs, inputs),
        scheme.bits,
        size,
        np.ascontiguousarray(codes.reshape(-1)),
        np.arange(1 << scheme.bits, dtype=np.float32),
        scales.astype(np.float32).T.flatten(),
        _zeros(zeros, scheme).T.flatten(),
        order,
    )


def write(blocks: Blocks, scheme: Scheme) -> dict[str, np.ndarray]:
    """Write a weight, which `read` reads again as it was.

    Args:
        blocks: the weight; its codes count from 0 on, its scales are numbers of float16.
        scheme: of the checkpoint.

    Returns:
        The tensors, by what stands behind the layer's name.
    """
    outputs, inputs = blocks.shape
    codes, groups = blocks.codes.reshape(outputs, -1), inputs // blocks.block
    order = np.arange(inputs) if blocks.order is None else blocks.order
    group_of = np.empty(inputs, np.int32)
    group_of[order] = np.arange(inputs) // blocks.block
    if blocks.order is not None:
        whole = codes if blocks.bits == 8 else unpacked(codes)
        codes = packed(whole[:, np.argsort(order)].reshape(-1), blocks.bits).reshape(outputs, -1)
    assert blocks.zeros is not None
    return {
        WORDS: _words_of_outputs(codes),
        ZEROS: _words_of_zeros(blocks.zeros.reshape(outputs, groups).T, scheme),
        SCALES: blocks.scales.reshape(outputs, groups).T.astype(np.float16, order="C"),
        GROUPS: group_of,
    }


# In a byte of a word are the codes of two consecutive inputs, or one's: as layers hold them, but for the order of axes.
def _bytes_by_output(words: np.ndarray) -> np.ndarray:
    """Put the bytes of int32[in / p, out] behind one another, uint8[out, in * bits / 8]."""
    outputs = words.shape[1]
    return words.view(np.uint8).reshape(-1, outputs, 4).transpose(1, 0, 2).reshape(outputs, -1)


def _words_of_outputs(codes: np.ndarray) -> np.ndarray:
    """Do the opposite of `_bytes_by_output`."""
    by_word = codes.reshape(len(codes), -1, 4).transpose(1, 0, 2)
    return np.ascontiguousarray(by_word).view(np.int32).reshape(by_word.shape[:2])


def _zeros(words: np.ndarray, scheme: Scheme) -> np.ndarray:
    """Take the zeros out of their words, float32[groups, out]."""
    bytes_of = np.ascontiguousarray(words).view(np.uint8)
    zeros = bytes_of if scheme.bits == 8 else unpacked(bytes_of)
    if scheme.stores_zeros_less_one:
        zeros = (zeros + np.uint8(1)) & np.uint8((1 << scheme.bits) - 1)
    return zeros.astype(np.float32)


def _words_of_zeros(zeros: np.ndarray, scheme: Scheme) -> np.ndarray:
    """Do the opposite of `_zeros`."""
    stored = zeros.astype(np.uint8)
    if scheme.stores_zeros_less_one:
        stored = (stored - np.uint8(1)) & np.uint8((1 << scheme.bits) - 1)
    return packed(stored.reshape(-1), scheme.bits).view(np.int32).reshape(len(zeros), -1)
