"""Stored tensors of either order as the published files have them, and files of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from paddlemix.files import write_json
from paddlemix.weights.dtypes import STORED_DTYPES
from paddlemix.weights.files import INDEX_FILE
from paddlemix.weights.layout import WeightLayout, unwrapped
from paddlemix.weights.safetensors_writer import Entry, write_safetensors
from paddlemix.weights.saving import file_names
from paddlemix.weights.stored_tensor import Source


def read_whole(source: Source, dtype: str) -> np.ndarray:
    """Read all numbers of a stored tensor.

    Args:
        source: the tensor.
        dtype: a key of `STORED_DTYPES`.

    Returns:
        They, in the file's shape.
    """
    numbers = np.empty(source.matrix_shape, STORED_DTYPES[dtype])
    source.read_into(numbers)
    return numbers.reshape(source.shape)


def published_name(name: str, source: Source) -> str:
    """Name what is stored for a parameter as published files do.

    Args:
        name: of the parameter.
        source: the tensor.

    Returns:
        The file's own name, without what wrappers put into it, unless the file is Paddle's: it may name layers as
        PaddleMIX does, which PyTorch's programs do not know.
    """
    return name if source.in_paddles_order else unwrapped(source.name)


def published_shape(name: str, source: Source, layout: WeightLayout) -> tuple[int, ...]:
    """Return the shape in PyTorch's order of what is stored for parameter `name`."""
    if not source.in_paddles_order or len(source.shape) > 2:
        return source.shape
    return tuple(layout.stored_shape(name, list(source.shape)))


def published_numbers(name: str, source: Source, layout: WeightLayout, dtype: str) -> np.ndarray:
    """Read what is stored for parameter `name` in PyTorch's order.

    Args:
        name: of the parameter.
        source: the tensor.
        layout: the family's.
        dtype: a key of `STORED_DTYPES`.

    Returns:
        All of its numbers.
    """
    numbers = read_whole(source, dtype)
    is_turned = name in layout.convolution_kernels or layout.is_transposed(name, 2)
    if source.in_paddles_order and len(source.shape) == 2 and is_turned:
        numbers = numbers.T
    return numbers.reshape(published_shape(name, source, layout))


def published_rows(name: str, source: Source, layout: WeightLayout, rows: slice) -> np.ndarray:
    """Read rows of what is stored for the matrix of parameter `name` in PyTorch's order.

    Args:
        name: of the parameter, which is no convolution on disk.
        source: the tensor, of two axes.
        layout: the family's.
        rows: a range without steps.

    Returns:
        float32[rows, columns].
    """
    outputs, inputs = published_shape(name, source, layout)
    numbers = np.empty([len(range(outputs)[rows]), inputs], np.float32)
    if source.in_paddles_order and layout.is_transposed(name, 2):
        source.read_into(numbers.T, columns=rows)
    else:
        source.read_into(numbers, rows=rows)
    return numbers


def write_sharded(
    folder: Path, shards: Sequence[Sequence[Entry]], written: Callable[[int], object] = lambda _: None
) -> None:
    """Write safetensors files, and an index beside them where there are several.

    Args:
        folder: must exist.
        shards: the tensors of each file.
        written: told the bytes of each tensor once they are written.
    """
    names = file_names(len(shards))
    for file, entries in zip(names, shards, strict=True):
        write_safetensors(folder / file, entries, written)
    if len(shards) > 1:
        size = sum(entry.bytes for entries in shards for entry in entries)
        weight_map = {entry.name: file for file, entries in zip(names, shards, strict=True) for entry in entries}
        write_json(folder / INDEX_FILE, {"metadata": {"total_size": size}, "weight_map": weight_map})
