"""PyTorch's `.bin` files: a zip of a pickle that describes tensors, and of their numbers, each storage a file in it."""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from io import BufferedReader
from itertools import accumulate
from operator import mul
from pathlib import Path
from typing import Any

from paddlemix.files import open_regular, refuse_pointer
from paddlemix.printable import brief
from paddlemix.weights.dtypes import STORED_DTYPES
from paddlemix.weights.pickled import MOST_STREAM, Calls, Name, PickleRefusal, read_pickle
from paddlemix.weights.stored_tensor import MOST_AXES, MOST_NUMBERS, MOST_TENSORS, StoredTensor
from paddlemix.weights.zip_entries import ZipEntry, ZipRefusal, content_start, read_entries

_STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
}
_AS_SAFETENSORS = "load it with the PyTorch that wrote it and save it as safetensors"


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: str


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    first: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch_file(file: Path) -> list[StoredTensor]:
    """List the tensors of a file that `torch.save` wrote from a state dict; none of its code is run.

    Args:
        file: such as pytorch_model.bin.

    Returns:
        Where the tensors lie.

    Raises:
        ValueError: not such a file, damaged, or it holds something else than tensors.
    """
    refuse_pointer(file)
    with open_regular(file) as opened:
        try:
            entries = read_entries(opened)
            if entries is not None:
                return _tensors(file, opened, entries)
        except (PickleRefusal, ZipRefusal) as error:
            raise ValueError(f"{file}: {error}.") from error
        except LookupError as error:
            raise ValueError(f"{file}: damaged or cut off, fetch it again.") from error
    raise ValueError(f"{file}: damaged or cut off, or in a format from before PyTorch 1.6; {_AS_SAFETENSORS}.")


def _tensors(file: Path, opened: BufferedReader, entries: dict[str, ZipEntry]) -> list[StoredTensor]:
    # All is in one folder, which has the name of the file as it was written.
    root = next(iter(entries), "").split("/")[0] + "/"
    order = entries.get(f"{root}byteorder")
    if order is not None and _content(opened, order, most=len(b"little")) != b"little":
        raise PickleRefusal(f"written on a big-endian machine; {_AS_SAFETENSORS}")
    pickled = _content(opened, entries[f"{root}data.pkl"], most=MOST_STREAM)
    found = read_pickle(io.BytesIO(pickled), _CALLS, _storage, file_size=opened.seek(0, io.SEEK_END))
    if type(found) is not dict or not all(type(tensor) is _Tensor for tensor in found.values()):
        raise PickleRefusal("holds more than a model's tensors; save its state dict alone, as safetensors")
    if len(found) > MOST_TENSORS:
        raise PickleRefusal(f"holds {len(found)} tensors, more than any model; fetch it again")
    places = {key: entries[f"{root}data/{key}"] for key in {tensor.storage.key for tensor in found.values()}}
    starts = {key: content_start(opened, entry) for key, entry in places.items()}
    return [
        _place(file, name, tensor, starts[tensor.storage.key], places[tensor.storage.key].size)
        for name, tensor in found.items()
    ]


def _content(opened: BufferedReader, entry: ZipEntry, *, most: int) -> bytes:
    if entry.size > most:
        raise PickleRefusal(f"holds {brief(entry.name)} of {entry.size} bytes, expected {most} at most; fetch it again")
    opened.seek(content_start(opened, entry))
    content = opened.read(entry.size)
    if zlib.crc32(content) != entry.checksum:
        raise ZipRefusal("damaged or cut off, fetch it again")
    return content


def _place(file: Path, name: str, tensor: _Tensor, start: int, size: int) -> StoredTensor:
    width = STORED_DTYPES[tensor.storage.dtype].itemsize
    sizes = list(accumulate(tensor.shape[::-1], mul, initial=1))
    in_order = tuple(sizes[-2::-1])
    # A transposed matrix is stored as it lies.
    by_columns = len(tensor.shape) == 2 and not _lies(tensor, in_order) and _lies(tensor, (1, tensor.shape[0]))
    if not by_columns and not _lies(tensor, in_order):
        raise PickleRefusal(f"{brief(name)} does not lie row by row; {_AS_SAFETENSORS}")
    if (tensor.first + sizes[-1]) * width > size:
        raise LookupError(f"{name} ends after its storage")
    return StoredTensor(
        name,
        file,
        start + tensor.first * width,
        tensor.shape,
        tensor.storage.dtype,
        by_columns=by_columns,
    )


def _lies(tensor: _Tensor, strides: tuple[int, ...]) -> bool:
    """Tell whether numbers lie with such steps between them; an axis of one has none, nor has what is empty."""
    if 0 in tensor.shape:
        return True
    steps = zip(tensor.shape, tensor.strides, strides, strict=True)
    return all(size == 1 or stride == wanted for size, stride, wanted in steps)


def _storage(identity: Any) -> _Storage:
    kind, storage_type, key, _device, _size = identity
    if kind != "storage" or type(storage_type) is not Name or type(key) is not str:
        raise TypeError("no storage")
    if storage_type.name not in _STORAGE_DTYPES:
        raise PickleRefusal(f"holds {brief(str(storage_type))}; expected floating-point numbers; {_AS_SAFETENSORS}")
    return _Storage(key, _STORAGE_DTYPES[storage_type.name])


def _rebuild_tensor(storage: _Storage, first: int, shape: tuple, strides: tuple, *_about_gradients: Any) -> _Tensor:
    are_tuples = type(shape) is type(strides) is tuple and len(shape) == len(strides) <= MOST_AXES
    if type(storage) is not _Storage or not are_tuples:
        raise TypeError("no tensor")
    if not all(type(value) is int and 0 <= value < MOST_NUMBERS for value in (first, *shape, *strides)):
        raise TypeError("no tensor")
    return _Tensor(storage, first, shape, strides)


def _rebuild_parameter(tensor: Any, *_about_gradients: Any) -> _Tensor:
    if type(tensor) is not _Tensor:
        raise TypeError("no tensor")
    return tensor


def _empty_dict() -> dict:
    return {}


_CALLS: Calls = {
    "collections.OrderedDict": _empty_dict,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
}
