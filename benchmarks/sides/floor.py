"""The least time that a step can take here: its products alone, or the bytes that it reads, as fast as this run's
machine is at them.

Products are counted by the library while a step runs, by shape. Each shape's is then timed by itself, by what computes
it in the step, at the same number of threads; what is not a product counts for nothing.
"""

from __future__ import annotations

import ctypes
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from paddlemix.ops.probing.measure import Path, time_product
from paddlemix.ops.tensors import built

# Of each shape so many products are timed, or as many as are done in so many seconds; the median counts.
_RUNS, _SECONDS = 7, 0.3
_NUMBERS = 9


class Sharing(IntEnum):
    """How a product is computed, as `external_ops/include/paddlemix/matmul.h` numbers it."""

    TOGETHER = 0
    ALONE = 1
    ALONE_HALF = 2


@dataclass(frozen=True)
class Product:
    """A shape, and how often a step computes it.

    Attributes:
        m: rows of the left factor.
        k: its columns.
        n: columns of the right factor.
        left_transposed: whether the left factor is held the other way round.
        right_transposed: likewise.
        rounded: whether the factors are held in bfloat16.
        sharing: by all threads, or one of many of which each thread computes some.
        right_bytes: of the right factor, a weight or a cache; a weight may be held as codes.
        times: how often.
    """

    m: int
    k: int
    n: int
    left_transposed: bool
    right_transposed: bool
    rounded: bool
    sharing: Sharing
    right_bytes: int
    times: int

    @property
    def share(self) -> float:
        """What of it is computed."""
        return 0.5 if self.sharing is Sharing.ALONE_HALF else 1.0

    @property
    def flop(self) -> float:
        """Multiplications and additions of all of them."""
        return 2.0 * self.m * self.k * self.n * self.share * self.times

    @property
    def read_bytes(self) -> float:
        """Bytes of the right factors of all of them."""
        return float(self.right_bytes * self.times)


@contextmanager
def counted_products() -> Iterator[list[Product]]:
    """Count the products that the built ops compute within the block.

    Yields:
        A list, which is filled where the block ends; it stays empty without the built ops.
    """
    handle, found = built.library().handle, []
    if handle is None:
        yield found
        return
    handle.paddlemix_count_products(1)
    try:
        yield found
    finally:
        handle.paddlemix_count_products(0)
    shapes = handle.paddlemix_counted_products(None, 0)
    numbers = (ctypes.c_int64 * (_NUMBERS * shapes))()
    handle.paddlemix_counted_products(numbers, shapes)
    for start in range(0, len(numbers), _NUMBERS):
        m, k, n, left, right, rounded, sharing, size, times = numbers[start : start + _NUMBERS]
        found.append(Product(m, k, n, bool(left), bool(right), bool(rounded), Sharing(sharing), size, times))


def floor_of_products(step: Callable[[], Any]) -> dict[str, float]:
    """Run a step once, and time its products alone.

    Args:
        step: computes by the built ops.

    Returns:
        "seconds", and "flop" that are computed in them; nothing without the built ops.
    """
    with counted_products() as products:
        step()
    if not products:
        return {}
    return {"seconds": sum(map(seconds_of_product, products)), "flop": sum(product.flop for product in products)}


def floor_of_bytes(step: Callable[[], Any]) -> dict[str, float]:
    """Run a step once that reads each weight for few rows, and time the reading of so many bytes.

    Args:
        step: computes by the built ops.

    Returns:
        "seconds", and "bytes" that are read in them; nothing without the built ops.
    """
    with counted_products() as products:
        step()
    if not products:
        return {}
    size = int(sum(product.read_bytes for product in products))
    seconds = (ctypes.c_double * (_RUNS + 1))()
    _handle().paddlemix_time_reading(size, len(seconds), seconds)
    return {"seconds": statistics.median(seconds[1:]), "bytes": float(size)}


def seconds_of_product(product: Product) -> float:
    """Time a product by what computes it in a step, and return the seconds of all of its kind."""
    handle, threads = _handle(), built.num_threads()
    alone = product.sharing is not Sharing.TOGETHER
    if alone:
        built.set_num_threads(1)
    try:
        times = time_product(
            handle,
            _path(product),
            product.m,
            product.k,
            product.n,
            transposed=(product.left_transposed, product.right_transposed),
            runs=_RUNS + 1,
            most=_SECONDS,
        )
    finally:
        built.set_num_threads(threads)
    seconds = statistics.median(times.wall[1:] or times.wall)  # the first one prepares
    return seconds * product.share * product.times / (threads if alone else 1)


def _path(product: Product) -> Path:
    if product.rounded:
        return Path.BFLOAT16
    speed = built.speed()
    assert speed is not None, "no built ops"
    if product.m <= speed.choice.few_rows and not (product.left_transposed or product.right_transposed):
        return Path.REGISTERS
    return Path.MKL if speed.choice.mkl else Path.ONEDNN


def _handle() -> ctypes.CDLL:
    handle = built.library().handle
    assert handle is not None, "what was counted was counted by the library"
    return handle
