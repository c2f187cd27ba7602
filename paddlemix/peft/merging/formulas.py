"""What an adapter makes of a weight, in float32 and PyTorch's shapes.

Sources: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, arXiv:2106.09685; Liu et al., "DoRA:
Weight-Decomposed Low-Rank Adaptation", 2024, arXiv:2402.09353 (a length for each output).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paddle

from paddlemix.peft import adapter_names as names
from paddlemix.peft.adapter import Adapter, tokens_of
from paddlemix.weights.published import read_whole
from paddlemix.weights.stored_tensor import Source


def with_adapter(weight: np.ndarray, layer: str, adapter: Adapter) -> np.ndarray:
    """Compute what an adapter makes of a layer's weight.

    Args:
        weight: float32, of a linear layer [out, in], of a convolution over whole patches [out, channels, ...], or of an
            embedding [tokens, width].
        layer: that the weight is of.
        adapter: has parts for the layer, of fitting shapes.

    Returns:
        float32, of the weight's shape.
    """
    weight = _with_product(weight, layer, adapter, names.DOWN, names.UP)
    # An embedding's parts are those of the layer that has its transposed weight.
    weight = _with_product(weight.T, layer, adapter, names.EMBEDDING_DOWN, names.EMBEDDING_UP).T
    rows = adapter.part(layer, names.TOKEN_ROWS)
    return weight if rows is None else _with_rows(weight, tokens_of(adapter, layer), _numbers(rows))


def with_up_bias(bias: np.ndarray, layer: str, adapter: Adapter) -> np.ndarray:
    """Compute what the bias of a product (`lora_bias`) makes of a layer's own.

    Args:
        bias: float32[out].
        layer: that the bias is of.
        adapter: has a bias for the layer.

    Returns:
        float32[out].
    """
    added = adapter.part(layer, names.UP_BIAS)
    assert added is not None, "only layers that have one are asked for"
    return bias + np.float32(adapter.scaling_of(layer)) * _numbers(added)


def _with_product(weight: np.ndarray, layer: str, adapter: Adapter, down_part: str, up_part: str) -> np.ndarray:
    down, up = adapter.part(layer, down_part), adapter.part(layer, up_part)
    if down is None or up is None:
        return weight
    matrix = paddle.to_tensor(np.ascontiguousarray(weight).reshape([weight.shape[0], -1]))
    factors = (_numbers(one).reshape([one.shape[0], -1]) for one in (up, down))
    # In float32, and rounded once, when it is stored.
    merged = paddle.addmm(matrix, *map(paddle.to_tensor, factors), alpha=adapter.scaling_of(layer)).numpy()
    magnitude = adapter.part(layer, names.MAGNITUDE)
    if magnitude is not None:
        merged *= _numbers(magnitude).reshape([-1, 1]) / np.linalg.norm(merged, axis=1, keepdims=True)
    return merged.reshape(weight.shape)


def _with_rows(weight: np.ndarray, tokens: Sequence[int], rows: np.ndarray) -> np.ndarray:
    weight = np.array(weight)
    weight[list(tokens)] = rows
    return weight


def _numbers(source: Source) -> np.ndarray:
    return read_whole(source, "float32")
