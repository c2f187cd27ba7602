"""Linear layers whose weights are held as codes of 4 or 8 bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import paddle
from paddle.autograd import PyLayer

from paddlemix.ops.tensors.checks import check_shape

# Numbers of a weight that are in floating point at a time: 16 MiB in float32.
_TILE = 1 << 22


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """A weight [out, in] as codes, in blocks of consecutive numbers that share a scale.

    Number `n` of the flattened weight is `(value of its code - zeros[n // block]) * scales[n // block]`.

    Attributes:
        shape: outputs and inputs.
        codes: uint8[out * in * bits / 8], those of the flattened weight; of two codes in a byte the lower bits come
            first.
        values: float32[256, 8 / bits], what the codes of each byte stand for.
        scales: float32[blocks].
        block: numbers of a block; blocks may run over the ends of rows.
        zeros: float32[blocks], or None for 0.
        order: int64[in], the input that each column is for; None where column `i` is for input `i`.
    """

    shape: tuple[int, int]
    codes: paddle.Tensor
    values: paddle.Tensor
    scales: paddle.Tensor
    block: int
    zeros: paddle.Tensor | None = None
    order: paddle.Tensor | None = None

    def rows(self, first: int, end: int) -> paddle.Tensor:
        """Put rows into floating point, columns in the order of the codes.

        Args:
            first: an output; where two codes are in a byte and there are odd inputs, an even one.
            end: the output behind the last.

        Returns:
            float32[end - first, in].
        """
        inputs, codes_in_byte = self.shape[1], self.values.shape[1]
        start, stop = first * inputs, end * inputs
        codes = self.codes[start // codes_in_byte : -(-stop // codes_in_byte)]
        numbers = paddle.gather(self.values, codes.astype("int32")).flatten()[: stop - start]
        if self.block and inputs % self.block == 0:  # so that a block's factors need not be repeated
            blocks = slice(start // self.block, stop // self.block)
            numbers = numbers.reshape([-1, self.block])
            if self.zeros is not None:
                numbers = numbers - self.zeros[blocks].unsqueeze(-1)
            return (numbers * self.scales[blocks].unsqueeze(-1)).reshape([end - first, inputs])
        block_of = paddle.arange(start, stop) // self.block
        if self.zeros is not None:
            numbers = numbers - paddle.gather(self.zeros, block_of)
        return (numbers * paddle.gather(self.scales, block_of)).reshape([end - first, inputs])

    def tiles(self) -> Iterator[tuple[slice, paddle.Tensor]]:
        """Put the weight into floating point, part by part.

        Yields:
            Outputs, and their float32[outputs, in], columns in the order of the codes.
        """
        outputs, inputs = self.shape
        at_once = max(2, _TILE // max(inputs, 1) // 2 * 2)  # an even number: see `rows`
        for first in range(0, outputs, at_once):
            end = min(first + at_once, outputs)
            yield slice(first, end), self.rows(first, end)


def quantized_linear(x: paddle.Tensor, weight: QuantizedWeight, bias: paddle.Tensor | None = None) -> paddle.Tensor:
    """Compute `x weight^T + bias`, with no more than a part of the weight in floating point at a time.

    The weight has no gradient. Under automatic mixed precision the product is computed in its dtype.

    Args:
        x: float[..., in].
        weight: of [out, in].
        bias: float[out], or None.

    Returns:
        float[..., out].

    Raises:
        ValueError: shapes do not fit.
    """
    outputs, inputs = weight.shape
    if not x.ndim or x.shape[-1] != inputs:
        raise ValueError(f"the weight of shape {[outputs, inputs]} does not multiply `x` of shape {list(x.shape)}.")
    dtype = paddle.get_autocast_dtype(_device(x)) if paddle.is_autocast_enabled() else x.dtype
    rows = x.astype(dtype).reshape([-1, inputs])
    if weight.order is not None:
        rows = paddle.index_select(rows, weight.order, axis=1)
    with paddle.amp.auto_cast(enable=False):
        y = _Product.apply(rows, weight).reshape([*x.shape[:-1], outputs])
        if bias is None:
            return y
        check_shape("bias", bias, [outputs])
        return y + bias.astype(y.dtype)


def _device(tensor: paddle.Tensor) -> str:
    return "cpu" if tensor.place.is_cpu_place() else "gpu"


class _Product(PyLayer):
    """`x weight^T`; the weight is put into floating point again for the gradient, and not kept."""

    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, weight: QuantizedWeight) -> paddle.Tensor:
        """Multiply float[rows, in]."""
        ctx.weight = weight
        parts = [paddle.matmul(x, tile.astype(x.dtype), transpose_y=True) for _, tile in weight.tiles()]
        return parts[0] if len(parts) == 1 else paddle.concat(parts, axis=1)

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        """Return the gradient of float[rows, in]."""
        total = None
        for outputs, tile in ctx.weight.tiles():
            part = paddle.matmul(gradient[:, outputs], tile.astype(gradient.dtype))
            total = part if total is None else total + part
        return total
