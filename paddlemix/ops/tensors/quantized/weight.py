"""Weights that are held as codes of 4 or 8 bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import paddle

from paddlemix.ops.tensors import built

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

    @cached_property
    def tensors(self) -> list[paddle.Tensor]:
        """Codes, values, scales, zeros and order as the built ops take them."""
        zeros = built.nothing() if self.zeros is None else self.zeros
        order = built.nothing("int64") if self.order is None else self.order
        return [self.codes, self.values, self.scales, zeros, order]

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
        if inputs % self.block == 0:  # so that a block's factors need not be repeated
            blocks = slice(start // self.block, stop // self.block)
            numbers = numbers.reshape([-1, self.block])
            if self.zeros is not None:
                numbers = numbers - self.zeros[blocks].unsqueeze(-1)
            return (numbers * self.scales[blocks].unsqueeze(-1)).reshape([end - first, inputs])
        block_of = paddle.arange(start, stop) // self.block
        if self.zeros is not None:
            numbers = numbers - paddle.gather(self.zeros, block_of)
        return (numbers * paddle.gather(self.scales, block_of)).reshape([end - first, inputs])

    @staticmethod
    def outputs_at_once(inputs: int) -> int:
        """Tell how many outputs, an even number (see `rows`), are put into floating point at a time."""
        return max(2, _TILE // max(inputs, 1) // 2 * 2)

    def tiles(self) -> Iterator[tuple[slice, paddle.Tensor]]:
        """Put the weight into floating point, part by part.

        Yields:
            Outputs, and their float32[outputs, in], columns in the order of the codes.
        """
        outputs, inputs = self.shape
        at_once = self.outputs_at_once(inputs)
        for first in range(0, outputs, at_once):
            end = min(first + at_once, outputs)
            yield slice(first, end), self.rows(first, end)
