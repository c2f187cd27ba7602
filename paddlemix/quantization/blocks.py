"""A quantised weight in the one form in which layers hold it, whatever its file's is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import paddle

from paddlemix import ops


@dataclass(frozen=True, eq=False)
class Blocks:
    """A weight [out, in] as codes, in blocks of consecutive numbers that share a scale.

    Number `n` of the flattened weight is `(values[code of n] - zeros[n // block]) * scales[n // block]`; `order` says
    which input each column is for.

    Attributes:
        shape: outputs and inputs.
        bits: of a code, 4 or 8.
        block: numbers of a block.
        codes: uint8[out * in * bits / 8], those of the flattened weight; of two in a byte the lower bits come first.
        values: float32[2 ** bits], what each code stands for.
        scales: float32[blocks].
        zeros: float32[blocks], or None for 0.
        order: int64[in], or None for the inputs' own order.
    """

    shape: tuple[int, int]
    bits: int
    block: int
    codes: np.ndarray
    values: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray | None = None
    order: np.ndarray | None = None

    @property
    def bytes(self) -> int:
        """What the weight takes in a layer."""
        zeros, order = self.zeros is not None, self.order is not None
        return held_bytes(self.shape, self.bits, self.block, zeros=zeros, order=order)

    def numbers(self, rows: slice) -> np.ndarray:
        """Put rows into floating point.

        Args:
            rows: outputs; a range without steps.

        Returns:
            float32[rows, in], columns in the order of the inputs.
        """
        outputs, inputs = self.shape
        first, end, _ = rows.indices(outputs)
        start, stop = first * inputs, end * inputs
        block_of = np.arange(start, stop) // self.block
        numbers = self.values[self._codes(start, stop)]
        if self.zeros is not None:
            numbers = numbers - self.zeros[block_of]
        found = (numbers * self.scales[block_of]).reshape(end - first, inputs)
        if self.order is None:
            return found
        in_place = np.empty_like(found)
        in_place[:, self.order] = found
        return in_place

    def weight(self) -> ops.QuantizedWeight:
        """Hand the weight to Paddle, on its current device."""
        pairs = self.values[:, None] if self.bits == 8 else self.values[_CODES_OF_BYTES]
        return ops.QuantizedWeight(
            self.shape,
            paddle.to_tensor(self.codes),
            paddle.to_tensor(pairs),
            paddle.to_tensor(self.scales),
            self.block,
            None if self.zeros is None else paddle.to_tensor(self.zeros),
            None if self.order is None else paddle.to_tensor(self.order),
        )

    def _codes(self, start: int, stop: int) -> np.ndarray:
        if self.bits == 8:
            return self.codes[start:stop]
        found = unpacked(self.codes[start // 2 : -(-stop // 2)])
        return found[start % 2 :][: stop - start]


def held_bytes(shape: tuple[int, int], bits: int, block: int, *, zeros: bool, order: bool) -> int:
    """Count what a layer holds of a weight: codes, what those of each byte stand for, scales, zeros and order.

    Args:
        shape: outputs and inputs.
        bits: of a code.
        block: numbers that share a scale.
        zeros: whether they have zeros too.
        order: whether the inputs are in another order than their own.

    Returns:
        Bytes.
    """
    outputs, inputs = shape
    numbers = outputs * inputs
    codes, values, in_order = -(-numbers * bits // 8), 4 * 256 * (8 // bits), 8 * inputs if order else 0
    return codes + values + 4 * -(-numbers // block) * (2 if zeros else 1) + in_order


# The two codes of each byte, the lower first.
_CODES_OF_BYTES = np.stack([np.arange(256) & 15, np.arange(256) >> 4], axis=1)


def unpacked(packed: np.ndarray) -> np.ndarray:
    """Take codes of 4 bits out of their bytes.

    Args:
        packed: uint8[..., N].

    Returns:
        uint8[..., 2 N], of each byte the lower bits first.
    """
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


def packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Put codes into bytes.

    Args:
        codes: uint8[N].
        bits: of each, 4 or 8.

    Returns:
        uint8[ceil(N * bits / 8)], of each byte the lower bits first.
    """
    if bits == 8:
        return np.ascontiguousarray(codes)
    if len(codes) % 2:
        codes = np.append(codes, np.uint8(0))
    return codes[0::2] | (codes[1::2] << 4)
