"""Write a model's weights: safetensors with the published names and PyTorch's shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from safetensors.numpy import save_file

from paddlemix.files import replacing, write_json
from paddlemix.weights.dtypes import STORED_DTYPES
from paddlemix.weights.files import INDEX_FILE, WEIGHTS_FILE
from paddlemix.weights.layout import WeightLayout, checkpoint_tensors
from paddlemix.weights.share import gather_whole, whole_shape

MAX_SHARD_BYTES = 5 * 10**9
SHARD_GLOB = "model-?????-of-?????.safetensors"


def save_weights(
    model: nn.Layer,
    folder: Path,
    layout: WeightLayout,
    *,
    dtype: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write the parameters as safetensors with the published names and shapes.

    Where the model is split over ranks, the others must call `lend_weights` meanwhile.

    Args:
        model: any model of the family.
        folder: must exist; weights that it holds already are replaced, a file when its new one is whole.
        layout: the family's.
        dtype: "float32", "float16" or "bfloat16" on disk; None keeps each parameter's own.
        max_shard_bytes: the largest file; a bigger model is cut into shards with an index.
    """
    parameters = checkpoint_tensors(model)
    shards = list(cut({key: _size(parameter) for key, parameter in parameters.items()}, max_shard_bytes))
    names = file_names(len(shards))
    for name, shard in zip(names, shards, strict=True):
        wholes = ((key, gather_whole(parameters[key], parameters[key])) for key in shard)
        save_tensors(folder / name, {key: to_stored_shape(whole, key, layout, dtype) for key, whole in wholes})
    if len(shards) > 1:
        weight_map = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        write_json(folder / INDEX_FILE, {"metadata": {}, "weight_map": weight_map})
        names.append(INDEX_FILE)
    _remove_other_weights(folder, names)


def lend_weights(model: nn.Layer) -> None:
    """Give the rank that saves the model what it does not hold itself; does nothing where the model is not split."""
    for parameter in checkpoint_tensors(model).values():
        gather_whole(parameter, parameter)


def file_names(count: int) -> list[str]:
    """Name the files of a model's weights.

    Args:
        count: how many there are, one or more.

    Returns:
        The published names, in order.
    """
    if count == 1:
        return [WEIGHTS_FILE]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def save_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write arrays in PyTorch's shapes as a safetensors file, whole or not at all."""
    with replacing(path, in_folder=True) as staged:
        save_file(tensors, staged, metadata={"format": "pt"})


def _remove_other_weights(folder: Path, kept: list[str]) -> None:
    """Remove what an earlier save cut differently: a reader that found its index or its one file would take those."""
    for file in (folder / WEIGHTS_FILE, folder / INDEX_FILE, *folder.glob(SHARD_GLOB)):
        if file.name not in kept:
            file.unlink(missing_ok=True)


def to_stored_shape(parameter: paddle.Tensor, name: str, layout: WeightLayout, dtype: str | None) -> np.ndarray:
    """Return the numbers of parameter `name` as they lie on disk, in `dtype` or its own."""
    own_dtype = str(parameter.dtype).removeprefix("paddle.")
    # Through float32, exact for both: numpy sees Paddle's bfloat16 as bare uint16.
    value = parameter.astype("float32").numpy().astype(STORED_DTYPES[dtype or own_dtype])
    if name in layout.convolution_kernels:
        return np.ascontiguousarray(value.T).reshape([-1, *layout.convolution_kernels[name]])
    return np.ascontiguousarray(value.T if layout.is_transposed(name, value.ndim) else value)


def cut(sizes: Mapping[str, int], max_bytes: int = MAX_SHARD_BYTES) -> Iterator[list[str]]:
    """Share tensors out to files.

    Args:
        sizes: the bytes of each by name.
        max_bytes: the largest file, unless one tensor is larger.

    Yields:
        The names of each file's tensors, in order.
    """
    shard: list[str] = []
    size = 0
    for name, bytes_ in sizes.items():
        if shard and size + bytes_ > max_bytes:
            yield shard
            shard, size = [], 0
        shard.append(name)
        size += bytes_
    yield shard


def _size(parameter: paddle.Tensor) -> int:
    return math.prod(whole_shape(parameter)) * parameter.element_size()
