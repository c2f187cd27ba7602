"""Paddle's `.pdparams` files: a pickled dict of numpy arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddlemix.files import refuse_pointer
from paddlemix.weights.dtypes import STORED_DTYPES
from paddlemix.weights.pickled import Calls, Name, PickleRefusal, Span, read_pickle
from paddlemix.weights.stored_tensor import StoredTensor

# Numpy's name -> ours. Paddle writes bfloat16 as the unsigned integers of the same bits, or as ml_dtypes' type.
_DTYPES = {"f8": "float64", "f4": "float32", "f2": "float16", "u2": "bfloat16", "ml_dtypes.bfloat16": "bfloat16"}
# Paddle puts a table of its own names beside the tensors.
_OWN_NAMES = "StructuredToParameterName@@"


@dataclass
class _Dtype:
    code: str
    is_little: bool = False

    def set_state(self, state: tuple) -> None:
        self.is_little = state[1] == "<"


@dataclass
class _Array:
    shape: tuple[int, ...] = ()
    dtype: str = ""
    by_columns: bool = False
    numbers: Span | None = None

    def set_state(self, state: tuple) -> None:
        _version, shape, dtype, is_fortran, numbers = state
        if type(dtype) is not _Dtype or dtype.code not in _DTYPES or not dtype.is_little:
            raise PickleRefusal("holds an array that is not of little-endian floating-point numbers")
        if is_fortran and len(shape) != 2:
            raise PickleRefusal("holds an array that lies neither row by row nor, as a matrix, column by column")
        are_counts = all(type(size) is int and size >= 0 for size in shape)
        if not are_counts or type(numbers) is not Span or type(is_fortran) is not bool:
            raise TypeError("no array")
        self.shape, self.dtype, self.numbers = tuple(shape), _DTYPES[dtype.code], numbers
        self.by_columns = is_fortran  # numpy stores a transposed matrix as it lies
        if math.prod(self.shape) * STORED_DTYPES[self.dtype].itemsize != numbers.length:
            raise ValueError("an array's bytes are not those of its shape")


def read_paddle_file(file: Path) -> list[StoredTensor]:
    """List the tensors of a file that `paddle.save` wrote from a state dict; none of its code is run.

    Args:
        file: such as model_state.pdparams.

    Returns:
        Where the tensors lie.

    Raises:
        ValueError: not such a file, damaged, or it holds something else than tensors.
    """
    refuse_pointer(file)
    try:
        with open(file, "rb") as opened:
            found = read_pickle(opened, _CALLS)
        if type(found) is not dict:
            raise PickleRefusal("holds no dict of tensors")
        found.pop(_OWN_NAMES, None)
        return [_place(file, name, value) for name, value in found.items()]
    except PickleRefusal as error:
        raise ValueError(f"{file}: {error}.") from error


def _place(file: Path, name: str, value: Any) -> StoredTensor:
    # A tensor is (its own name, array), an array in a state dict stands for itself.
    array = value[1] if type(value) is tuple and len(value) == 2 else value
    if type(array) is not _Array or array.numbers is None:
        raise PickleRefusal(f"{name} is no tensor; save a model's state dict alone, as safetensors")
    return StoredTensor(
        name,
        file,
        array.numbers.offset,
        array.shape,
        array.dtype,
        in_paddles_order=True,
        by_columns=array.by_columns,
    )


def _reconstruct(array_type: Any, *_empty: Any) -> _Array:
    if array_type != Name("numpy", "ndarray"):
        raise PickleRefusal(f"asks to make {array_type if type(array_type) is Name else 'something'}")
    return _Array()


def _dtype(code: Any, *_flags: Any) -> _Dtype:
    if type(code) not in (str, Name):
        raise TypeError("no dtype")
    return _Dtype(str(code))


_CALLS: Calls = {
    "builtins.tuple": tuple,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,  # from numpy 2 on
    "numpy.dtype": _dtype,
}
