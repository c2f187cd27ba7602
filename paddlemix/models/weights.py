"""Model weights on disk: safetensors with the published names and PyTorch's shapes, read and written as they are.

Paddle keeps a linear layer's weight as [in, out], the published files as [out, in]; a family's `WeightLayout` says what
else differs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import paddle
from paddle import nn
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from paddlemix.files import replacing, write_json

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
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


def load_weights(model: nn.Layer, folder: Path, layout: WeightLayout) -> None:
    """Fill every parameter of `model` from the safetensors files in `folder`, one tensor at a time.

    Args:
        model: its parameters' dtype decides into what the stored numbers are converted.
        folder: holds model.safetensors, or an index and its shards.
        layout: the family's.

    Raises:
        FileNotFoundError: no weights, or a shard of the index is missing.
        ValueError: a damaged file, or any missing, unexpected or wrong-shaped tensor; all of them are listed.
    """
    parameters = dict(model.named_parameters())
    seen, problems = set(), []
    for file, name, tensor in _stored_tensors(folder):
        here = layout.name_here(name)
        if here not in parameters:
            problems += [] if here in layout.optional else [f"unexpected: {name} ({file.name})"]
            continue
        seen.add(here)
        wanted = layout.stored_shape(here, list(parameters[here].shape))
        if list(tensor.shape) != wanted:
            problems.append(f"wrong shape: {name} is {list(tensor.shape)}, the config asks for {wanted} ({file.name})")
        else:
            _assign(parameters[here], _to_parameter_shape(tensor, here, layout))
    problems = [f"missing: {name}" for name in parameters if name not in seen] + problems
    if problems:
        raise ValueError(
            f"{folder}: {len(problems)} tensors do not fit the model that config.json describes:\n  "
            + "\n  ".join(problems)
        )


def save_weights(
    model: nn.Layer, folder: Path, layout: WeightLayout, *, dtype: str | None = None, max_shard_bytes: int = 5 * 10**9
) -> None:
    """Write the parameters as safetensors with the published names and shapes.

    Args:
        model: any model of the family.
        folder: must exist; weights that it holds already are replaced, a file when its new one is whole.
        layout: the family's.
        dtype: "float32", "float16" or "bfloat16" on disk; None keeps each parameter's own.
        max_shard_bytes: the largest file; a bigger model is cut into shards with an index.
    """
    shards = list(_shards(dict(model.named_parameters()), max_shard_bytes))
    names = (
        [WEIGHTS_FILE]
        if len(shards) == 1
        else [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    )
    for name, shard in zip(names, shards, strict=True):
        stored = {key: _to_stored_shape(parameter, key, layout, dtype) for key, parameter in shard.items()}
        with replacing(folder / name) as staged:
            # safetensors closes its files to everyone but their owner; this one gets what any new file has.
            staged.touch()
            mode = staged.stat().st_mode
            save_file(stored, staged, metadata={"format": "pt"})
            staged.chmod(mode)
    if len(shards) > 1:
        weight_map = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        write_json(folder / INDEX_FILE, {"metadata": {}, "weight_map": weight_map})
        names.append(INDEX_FILE)
    _remove_other_weights(folder, names)


def _remove_other_weights(folder: Path, kept: list[str]) -> None:
    """Remove what an earlier save cut differently: a reader that found its index or its one file would take those."""
    for file in (folder / WEIGHTS_FILE, folder / INDEX_FILE, *folder.glob(SHARD_GLOB)):
        if file.name not in kept:
            file.unlink(missing_ok=True)


def _stored_tensors(folder: Path) -> Iterator[tuple[Path, str, np.ndarray]]:
    for file in _weight_files(folder):
        try:
            with safe_open(file, framework="np") as opened:
                for name in opened.keys():  # noqa: SIM118  (safe_open is no mapping)
                    yield file, name, opened.get_tensor(name)
        except SafetensorError as error:
            raise ValueError(f"{file}: damaged or cut off, fetch it again ({error}).") from error


def _weight_files(folder: Path) -> list[Path]:
    index = folder / INDEX_FILE
    files = [folder / name for name in (_shard_names(index) if index.is_file() else [WEIGHTS_FILE])]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder}: no {', '.join(missing)}; `model_name_or_path` must name a whole checkpoint."
        )
    return files


def _shard_names(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{index}: damaged, no `weight_map` can be read from it; fetch it again.") from error


def _to_parameter_shape(tensor: np.ndarray, name: str, layout: WeightLayout) -> np.ndarray:
    if name in layout.convolution_kernels:
        return tensor.reshape(len(tensor), -1).T
    return tensor.T if layout.is_transposed(name, tensor.ndim) else tensor


def _to_stored_shape(parameter: paddle.Tensor, name: str, layout: WeightLayout, dtype: str | None) -> np.ndarray:
    own_dtype = str(parameter.dtype).removeprefix("paddle.")
    # Through float32, exact for both: numpy sees Paddle's bfloat16 as bare uint16.
    value = parameter.astype("float32").numpy().astype(NUMPY_DTYPES[dtype or own_dtype])
    if name in layout.convolution_kernels:
        return np.ascontiguousarray(value.T).reshape([-1, *layout.convolution_kernels[name]])
    return np.ascontiguousarray(value.T if layout.is_transposed(name, value.ndim) else value)


def _assign(parameter: paddle.Tensor, value: np.ndarray) -> None:
    # Through float32 likewise, and contiguous: Paddle copies a strided array element by element.
    wide = np.ascontiguousarray(value, dtype=np.float32)
    parameter.set_value(paddle.to_tensor(wide).astype(parameter.dtype))


def _shards(parameters: dict[str, paddle.Tensor], max_bytes: int) -> Iterator[dict[str, paddle.Tensor]]:
    shard: dict[str, paddle.Tensor] = {}
    size = 0
    for name, parameter in parameters.items():
        bytes_ = parameter.size * parameter.element_size()
        if shard and size + bytes_ > max_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = parameter
        size += bytes_
    yield shard
