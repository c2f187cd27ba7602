"""Numbers in half precision, rounded where they are made: a card is sent half as many bytes."""

from __future__ import annotations

import numpy as np

_QUIET_NAN = 0x7FFF  # what Paddle makes of every NaN


def rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    """Round to the nearest, of two as near to the even one, as a card's own cast does.

    Args:
        array: float32[...].
        dtype: "bfloat16", "float16" or "float32", which leaves numbers as they are.

    Returns:
        float16[...]; or uint16[...] of the same shape, the bits of bfloat16, which Paddle takes for numbers.

    Source: IEEE 754, 2019, section 4.3.1.
    """
    if dtype == "float32":
        return array
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return array.astype(np.float16)
    bits = array.view(np.uint32)
    # A half of the last place, less one bit where the number below is even; what overflows goes on into the exponent.
    halves = (bits >> 16 & 1) + np.uint32(0x7FFF)
    halves += bits
    halves >>= 16
    found = halves.astype(np.uint16)
    found[np.isnan(array)] = _QUIET_NAN
    return found
