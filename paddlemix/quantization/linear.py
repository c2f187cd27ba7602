"""A linear layer whose weight is held as codes and is not trained."""

from __future__ import annotations

from dataclasses import fields

import paddle
from paddle import nn

from paddlemix import ops
from paddlemix.quantization.blocks import Blocks


class QuantizedLinear(nn.Layer):
    """A linear layer in whose place another one's weight is held as codes.

    Its codes are neither parameters nor buffers, so that no checkpoint holds them.

    Args:
        blocks: the weight.
        bias: float[out], the layer's own, or None.
    """

    def __init__(self, blocks: Blocks, bias: paddle.Tensor | None) -> None:
        super().__init__()
        self.bias = bias
        self._weight = blocks.weight()
        self.bits = blocks.bits

    @property
    def sizes(self) -> tuple[int, int]:
        """Widths of what comes in and of what goes out."""
        outputs, inputs = self._weight.shape
        return inputs, outputs

    @property
    def codes(self) -> ops.QuantizedWeight:
        """The weight."""
        return self._weight

    @property
    def quantized_bytes(self) -> int:
        """What the weight takes."""
        tensors = (getattr(self._weight, one.name) for one in fields(self._weight))
        return sum(one.size * one.element_size() for one in tensors if isinstance(one, paddle.Tensor))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Transform float[..., in] to float[..., out]."""
        return ops.quantized_linear(x, self._weight, self.bias)

    def dequantized(self, dtype: str) -> paddle.Tensor:
        """Put the weight into floating point.

        Args:
            dtype: of the numbers.

        Returns:
            float[in, out].
        """
        outputs, inputs = self._weight.shape
        whole = paddle.empty([inputs, outputs], dtype)
        for rows, tile in self._weight.tiles():
            whole[:, rows] = tile.T.astype(dtype)
        order = self._weight.order
        return whole if order is None else paddle.index_select(whole, paddle.argsort(order), axis=0)

    def extra_repr(self) -> str:
        """Describe the layer."""
        inputs, outputs = self.sizes
        return f"in_features={inputs}, out_features={outputs}, bits={self.bits}"
