"""What cards can do at most, and the time that ops take at these rates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# Seconds from one kernel to the next where the host is ahead of the card.
LAUNCH = 3e-6


@dataclass(frozen=True)
class Card:
    """A card's rates, as NVIDIA's data sheets have them: dense products, the SXM variant where there are several.

    Attributes:
        half: FLOP/s of products in bfloat16 that are summed in float32.
        single: FLOP/s of products in float32, without TF32.
        bandwidth: bytes/s of its memory.
        memory: GB.
    """

    half: float
    single: float
    bandwidth: float
    memory: float


CARDS = {
    # NVIDIA A100 80GB data sheet, 2022.
    "A100": Card(312e12, 19.5e12, 2.039e12, 80),
    # NVIDIA H100 data sheet, 2024; products without sparsity, half of what it names.
    "H100": Card(989.5e12, 67e12, 3.35e12, 80),
    # NVIDIA H200 data sheet, 2024; likewise.
    "H200": Card(989.5e12, 67e12, 4.8e12, 141),
    # NVIDIA Ada GPU architecture, appendix A, 2022: RTX 4090.
    "4090": Card(165.2e12, 82.6e12, 1.008e12, 24),
}


def seconds(works: Iterable[Any], card: Card) -> float:
    """Add up the time of ops: each takes what its products or its memory take at the card's rate, and its launches.

    Args:
        works: [name, phase, kernels, FLOPs, bytes, whether products are of float32, how many such ops].
        card: its rates.

    Returns:
        Seconds; no card reaches its rates.
    """
    total = 0.0
    for _, _, kernels, flops, moved, is_wide, count in works:
        busy = max(flops / (card.single if is_wide else card.half), moved / card.bandwidth)
        total += count * (busy + kernels * LAUNCH)
    return total
