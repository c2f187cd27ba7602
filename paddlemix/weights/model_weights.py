"""Model weights on disk: safetensors with the published names and PyTorch's shapes, read and written as they are.

Paddle keeps a linear layer's weight as [in, out], the published files as [out, in]; a family's `WeightLayout` says what
else differs.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import paddle
from paddle import nn
from paddlenlp.transformers.model_utils import no_init_weights
from safetensors.numpy import save_file

from paddlemix.files import replacing, write_json
from paddlemix.weights.files import INDEX_FILE, WEIGHTS_FILE, stored_tensors
from paddlemix.weights.share import Share, gather_whole, share_of, whole_shape
from paddlemix.weights.stored_tensor import STORED_DTYPES, StoredTensor

SHARD_GLOB = "model-?????-of-?????.safetensors"
NUMPY_DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@dataclass(frozen=True)
class WeightLayout:
    """Where a family's files differ from its parameters.

    Attributes:
        renamed: (prefix on disk, prefix here), tried in order, for names that later writers changed.
        convolution_kernels: the kernel [C, T, P, P] of each parameter that is a convolution [E, C, T, P, P] on disk
            and a matmul [C * T * P * P, E] here.
        not_transposed: matrices that lie the same way on both sides.
        optional: names on disk that may stand there without a parameter, such as a tied head.
    """

    renamed: tuple[tuple[str, str], ...]
    convolution_kernels: dict[str, tuple[int, ...]]
    not_transposed: tuple[str, ...]
    optional: tuple[str, ...] = ()

    def name_here(self, name: str) -> str:
        """The parameter that `name` on disk is for."""
        for there, here in self.renamed:
            if name.startswith(there):
                return here + name.removeprefix(there)
        return name

    def is_transposed(self, name: str, ndim: int) -> bool:
        """Whether parameter `name` of `ndim` axes lies transposed on disk."""
        return ndim == 2 and name not in self.not_transposed

    def stored_shape(self, name: str, shape: list[int]) -> list[int]:
        """The shape on disk of parameter `name`, which has `shape` here."""
        if name in self.convolution_kernels:
            return [shape[1], *self.convolution_kernels[name]]
        return shape[::-1] if self.is_transposed(name, len(shape)) else shape

    def reading(self, name: str, shape: list[int], stored: StoredTensor) -> tuple[list[int], bool]:
        """How `stored` is read into parameter `name`, which has `shape` here.

        Args:
            name: of the parameter.
            shape: of the parameter.
            stored: what is read.

        Returns:
            The shape that it must have, and whether rows and columns change places on the way.
        """
        is_convolution = name in self.convolution_kernels and len(stored.shape) > 2
        if stored.in_paddles_order and not is_convolution:
            return shape, False
        return self.stored_shape(name, shape), self.is_transposed(name, len(shape))


@contextmanager
def without_initial_values() -> Iterator[None]:
    """Layers that are built inside get parameters without memory, for `load_weights` to fill.

    Random values would all be overwritten, and took ten times as long as reading the files.
    """
    nothing = NoValues()
    nn.initializer.set_global_initializer(nothing, nothing)
    try:
        with no_init_weights():
            yield
    finally:
        nn.initializer.set_global_initializer(None)


class NoValues(nn.initializer.Initializer):
    """Leaves a parameter without memory, for one who puts another in its place."""

    def forward(self, var: paddle.Tensor, block: object = None) -> None:
        pass


def load_weights(model: nn.Layer, folder: Path, layout: WeightLayout) -> None:
    """Fill every parameter of `model` from the files in `folder`, block by block.

    Beside the parameters no more than a block of one tensor is in memory. Of a parameter that is split over ranks, a
    rank reads its own part.

    Args:
        model: its parameters' dtype decides into what the stored numbers are converted.
        folder: holds weights as `stored_tensors` reads them.
        layout: the family's.

    Raises:
        FileNotFoundError: no weights, or a shard of the index is missing.
        ValueError: a damaged file, or any missing, unexpected or wrong-shaped tensor; all of them are listed, before
            any parameter changes.
    """
    parameters = _tensors(model)
    for name, stored in _match(parameters, folder, layout).items():
        fill(parameters[name], stored, layout.reading(name, list(parameters[name].shape), stored)[1])


def save_weights(
    model: nn.Layer, folder: Path, layout: WeightLayout, *, dtype: str | None = None, max_shard_bytes: int = 5 * 10**9
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
    shards = list(_shards(_tensors(model), max_shard_bytes))
    names = file_names(len(shards))
    for name, shard in zip(names, shards, strict=True):
        wholes = ((key, gather_whole(parameter, parameter)) for key, parameter in shard.items())
        save_tensors(folder / name, {key: to_stored_shape(whole, key, layout, dtype) for key, whole in wholes})
    if len(shards) > 1:
        weight_map = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        write_json(folder / INDEX_FILE, {"metadata": {}, "weight_map": weight_map})
        names.append(INDEX_FILE)
    _remove_other_weights(folder, names)


def lend_weights(model: nn.Layer) -> None:
    """Give the rank that saves the model what it does not hold itself; does nothing where the model is not split."""
    for parameter in _tensors(model).values():
        gather_whole(parameter, parameter)


def file_names(count: int) -> list[str]:
    """What the files of a model's weights are called.

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
    with replacing(path) as staged:
        # safetensors closes its files to everyone but their owner; this one gets what any new file has.
        staged.touch()
        mode = staged.stat().st_mode
        save_file(tensors, staged, metadata={"format": "pt"})
        staged.chmod(mode)


def _tensors(model: nn.Layer) -> dict[str, paddle.Tensor]:
    """What a checkpoint holds: the parameters, and the constants beside them that the published files hold too."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _remove_other_weights(folder: Path, kept: list[str]) -> None:
    """Remove what an earlier save cut differently: a reader that found its index or its one file would take those."""
    for file in (folder / WEIGHTS_FILE, folder / INDEX_FILE, *folder.glob(SHARD_GLOB)):
        if file.name not in kept:
            file.unlink(missing_ok=True)


def _match(parameters: dict[str, paddle.Tensor], folder: Path, layout: WeightLayout) -> dict[str, StoredTensor]:
    """What each parameter is filled from, in the files' order."""
    matched: dict[str, StoredTensor] = {}
    problems = []
    for stored in stored_tensors(folder):
        name = layout.name_here(stored.name)
        if name in parameters and name not in matched:
            matched[name] = stored
            problems += misfit(name, parameters[name], stored, layout)
        elif name in parameters or name not in layout.optional:
            problems.append(f"{'twice' if name in parameters else 'unexpected'}: {stored.name} ({stored.file.name})")
    problems = [f"missing: {name}" for name in parameters if name not in matched] + problems
    if problems:
        raise ValueError(
            f"{folder}: {len(problems)} tensors do not fit the model that config.json describes:\n  "
            + "\n  ".join(problems)
        )
    return matched


def misfit(name: str, parameter: paddle.Tensor, stored: StoredTensor, layout: WeightLayout) -> list[str]:
    """Why `stored` cannot be read into parameter `name`; nothing where it can."""
    wanted, _ = layout.reading(name, whole_shape(parameter), stored)
    if list(stored.shape) != wanted:
        shape = f"{stored.name} is {list(stored.shape)}, the config asks for {wanted}"
        return [f"wrong shape: {shape} ({stored.file.name})"]
    if stored.dtype not in STORED_DTYPES:
        return [f"wrong dtype: {stored.name} is {stored.dtype}, no floating-point numbers ({stored.file.name})"]
    return []


def fill(parameter: paddle.Tensor, stored: StoredTensor, is_transposed: bool) -> None:
    """Read `stored`, which has a fitting shape, into a parameter; into one that is split, this rank's part."""
    fresh = paddle.empty(parameter.shape, dtype=parameter.dtype, device="cpu")
    memory, share = _memory(fresh), share_of(parameter)
    if share is None:
        stored.read_into(memory.T if is_transposed else memory.reshape(stored.matrix_shape))
    else:
        _read_share(stored, np.atleast_2d(memory), share, is_transposed)
    device = paddle.device.get_device()
    (fresh if device == "cpu" else fresh.to(device))._share_buffer_to(parameter)


def _read_share(stored: StoredTensor, memory: np.ndarray, share: Share, is_transposed: bool) -> None:
    is_columns = share.axis + 1 == len(stored.shape)  # in Paddle's order; a vector is one row
    if is_transposed:
        memory, is_columns = memory.T, not is_columns
    for here, there in share.places(stored.matrix_shape[int(is_columns)]):
        if is_columns:
            stored.read_into(memory[:, here], columns=there)
        else:
            stored.read_into(memory[here], rows=there)


def _memory(tensor: paddle.Tensor) -> np.ndarray:
    """The numbers of a tensor on the CPU, the very same memory; Paddle's own views for numpy are copies."""
    raw = (ctypes.c_char * (tensor.size * tensor.element_size())).from_address(tensor.data_ptr())
    dtype = NUMPY_DTYPES[str(tensor.dtype).removeprefix("paddle.")]
    return np.frombuffer(raw, dtype=dtype).reshape(tensor.shape)


def to_stored_shape(parameter: paddle.Tensor, name: str, layout: WeightLayout, dtype: str | None) -> np.ndarray:
    """The numbers of parameter `name` as they lie on disk, in `dtype` or its own."""
    own_dtype = str(parameter.dtype).removeprefix("paddle.")
    # Through float32, exact for both: numpy sees Paddle's bfloat16 as bare uint16.
    value = parameter.astype("float32").numpy().astype(NUMPY_DTYPES[dtype or own_dtype])
    if name in layout.convolution_kernels:
        return np.ascontiguousarray(value.T).reshape([-1, *layout.convolution_kernels[name]])
    return np.ascontiguousarray(value.T if layout.is_transposed(name, value.ndim) else value)


def _shards(parameters: dict[str, paddle.Tensor], max_bytes: int) -> Iterator[dict[str, paddle.Tensor]]:
    shard: dict[str, paddle.Tensor] = {}
    size = 0
    for name, parameter in parameters.items():
        bytes_ = math.prod(whole_shape(parameter)) * parameter.element_size()
        if shard and size + bytes_ > max_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = parameter
        size += bytes_
    yield shard
