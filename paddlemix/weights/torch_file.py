"""PyTorch's `.bin` files: a zip of a pickle that describes tensors, and of their numbers, each storage a file in it."""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from pathlib import Path
from typing import Any

from paddlemix.files import refuse_pointer
from paddlemix.weights.dtypes import STORED_DTYPES
from paddlemix.weights.pickled import Calls, Name, PickleRefusal, read_pickle
from paddlemix.weights.stored_tensor import StoredTensor

_STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
}
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, ..., lengths of the name and of the extra field after it
_AS_SAFETENSORS = "load it with the PyTorch that wrote it and save it as safetensors"


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str


@dataclass(frozen=True)
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
    if not zipfile.is_zipfile(file):
        raise ValueError(f"{file}: damaged or cut off, or in a format from before PyTorch 1.6; {_AS_SAFETENSORS}.")
    try:
        with zipfile.ZipFile(file) as archive:
            return _tensors(file, archive)
    except PickleRefusal as error:
        raise ValueError(f"{file}: {error}.") from error
    except (zipfile.BadZipFile, LookupError, RuntimeError, struct.error) as error:
        raise ValueError(f"{file}: damaged or cut off, fetch it again.") from error


def _tensors(file: Path, archive: zipfile.ZipFile) -> list[StoredTensor]:
    entries = {entry.filename: entry for entry in archive.infolist()}
    # All is in one folder, which has the name of the file as it was written.
    root = next(iter(entries), "").split("/")[0] + "/"
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        raise PickleRefusal("compressed, which PyTorch never writes")
    if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
        raise PickleRefusal(f"written on a big-endian machine; {_AS_SAFETENSORS}")
    found = read_pickle(io.BytesIO(archive.read(f"{root}data.pkl")), _CALLS, _storage)
    if type(found) is not dict or not all(type(tensor) is _Tensor for tensor in found.values()):
        raise PickleRefusal("holds more than a model's tensors; save its state dict alone, as safetensors")
    return [_place(file, name, tensor, entries[f"{root}data/{tensor.storage.key}"]) for name, tensor in found.items()]


def _place(file: Path, name: str, tensor: _Tensor, entry: zipfile.ZipInfo) -> StoredTensor:
    width = STORED_DTYPES[tensor.storage.dtype].itemsize
    sizes = list(accumulate(tensor.shape[::-1], mul, initial=1))
    in_order = tuple(sizes[-2::-1])
    # A transposed matrix is stored as it lies.
    by_columns = len(tensor.shape) == 2 and not _lies(tensor, in_order) and _lies(tensor, (1, tensor.shape[0]))
    if not by_columns and not _lies(tensor, in_order):
        raise PickleRefusal(f"{name} does not lie row by row; {_AS_SAFETENSORS}")
    if (tensor.first + sizes[-1]) * width > entry.file_size:
        raise LookupError(f"{name} ends after its storage")
    return StoredTensor(
        name,
        file,
        _data_offset(file, entry) + tensor.first * width,
        tensor.shape,
        tensor.storage.dtype,
        by_columns=by_columns,
    )


def _lies(tensor: _Tensor, strides: tuple[int, ...]) -> bool:
    """Tell whether numbers lie with such steps between them; an axis of one has none."""
    steps = zip(tensor.shape, tensor.strides, strides, strict=True)
    return all(size == 1 or stride == wanted for size, stride, wanted in steps)


def _data_offset(file: Path, entry: zipfile.ZipInfo) -> int:
    with open(file, "rb") as opened:
        opened.seek(entry.header_offset)
        signature, name_length, extra_length = _LOCAL_HEADER.unpack(opened.read(_LOCAL_HEADER.size))
    if signature != b"PK\x03\x04":
        raise zipfile.BadZipFile
    return entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length


def _storage(identity: Any) -> _Storage:
    kind, storage_type, key, _device, _size = identity
    if kind != "storage" or type(storage_type) is not Name or type(key) is not str:
        raise TypeError("no storage")
    if storage_type.name not in _STORAGE_DTYPES:
        raise PickleRefusal(f"holds {storage_type}; expected floating-point numbers")
    return _Storage(key, _STORAGE_DTYPES[storage_type.name])


def _rebuild_tensor(storage: _Storage, first: int, shape: tuple, strides: tuple, *_about_gradients: Any) -> _Tensor:
    are_counts = all(type(value) is int and value >= 0 for value in (first, *shape, *strides))
    if type(storage) is not _Storage or not are_counts or len(shape) != len(strides):
        raise TypeError("no tensor")
    return _Tensor(storage, first, tuple(shape), tuple(strides))


def _empty_dict() -> dict:
    return {}


_CALLS: Calls = {
    "collections.OrderedDict": _empty_dict,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_about_gradients: tensor,
}
