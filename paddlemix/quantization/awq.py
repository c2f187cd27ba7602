"""AWQ's files, of AutoAWQ's version "gemm".

Source of the method: Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration",
2023, arXiv:2306.00978.
"""

from __future__ import annotations

import numpy as np

from paddlemix.quantization.blocks import Blocks, packed, unpacked
from paddlemix.quantization.gptq import SCALES, WORDS, ZEROS
from paddlemix.quantization.parts import Parts
from paddlemix.quantization.scheme import Scheme

NAMES = (WORDS, ZEROS, SCALES)
_IN_WORD = 8
# The place within a word, from the lowest bits on, of each of eight consecutive outputs.
_PLACES = np.array([0, 4, 1, 5, 2, 6, 3, 7])


def shape_of(parts: Parts, scheme: Scheme) -> tuple[int, int]:
    """Return outputs and inputs of a weight."""
    del scheme
    inputs, words = parts.shape_of(WORDS, 2)
    return words * _IN_WORD, inputs


def read(parts: Parts, scheme: Scheme) -> Blocks:
    """Read a weight.

    A word of `qweight` int32[in, out / 8] and of `qzeros` int32[groups, out / 8] holds eight outputs, in an order of
    their own; zeros are stored as they are.

    Args:
        parts: of the layer.
        scheme: of the checkpoint.

    Returns:
        The weight.

    Raises:
        ValueError: a tensor is missing or none of such a weight.
    """
    outputs, inputs = shape_of(parts, scheme)
    size, groups = parts.blocks_along(inputs, scheme.group)
    codes = _codes(parts.read(WORDS, (inputs, outputs // _IN_WORD), "int32"))
    zeros = _codes(parts.read(ZEROS, (groups, outputs // _IN_WORD), "int32"))
    scales = parts.read(SCALES, (groups, outputs), "float16", "bfloat16", "float32")
    return Blocks(
        (outputs, inputs),
        4,
        size,
        packed(codes.T.reshape(-1), 4),
        np.arange(16, dtype=np.float32),
        scales.astype(np.float32).T.flatten(),
        zeros.astype(np.float32).T.flatten(),
    )


def write(blocks: Blocks, scheme: Scheme) -> dict[str, np.ndarray]:
    """Write a weight, which `read` reads again as it was.

    Args:
        blocks: the weight; its codes count from 0 on, its scales are numbers of float16, its inputs in their own order.
        scheme: of the checkpoint.

    Returns:
        The tensors, by what stands behind the layer's name.
    """
    del scheme
    outputs, inputs = blocks.shape
    groups = inputs // blocks.block
    assert blocks.zeros is not None and blocks.order is None
    return {
        WORDS: _words(unpacked(blocks.codes.reshape(outputs, -1)).T),
        ZEROS: _words(blocks.zeros.reshape(outputs, groups).T.astype(np.uint8)),
        SCALES: blocks.scales.reshape(outputs, groups).T.astype(np.float16, order="C"),
    }


def _codes(words: np.ndarray) -> np.ndarray:
    """Take codes out of their words int32[rows, out / 8], uint8[rows, out]."""
    in_words = unpacked(words.view(np.uint8)).reshape(len(words), -1, _IN_WORD)
    return in_words[:, :, _PLACES].reshape(len(words), -1)


def _words(codes: np.ndarray) -> np.ndarray:
    """Do the opposite of `_codes`."""
    in_words = np.empty([len(codes), codes.shape[1] // _IN_WORD, _IN_WORD], np.uint8)
    in_words[:, :, _PLACES] = codes.reshape(in_words.shape)
    return packed(in_words.reshape(-1), 4).view(np.int32).reshape(len(codes), -1)
