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


def _codes(words: np.ndarray) -> np.ndarray:
    """Take codes out of their words int32[rows, out / 8], uint8[rows, out]."""
    in_words = unpacked(words.view(np.uint8)).reshape(len(words), -1, _IN_WORD)
    return in_words[:, :, _PLACES].reshape(len(words), -1)
