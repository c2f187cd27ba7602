"""Paddle's `.pdparams` files: a pickled dict of numpy arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddlemix.files import open_regular, refuse_pointer
from paddlemix.printable import brief
from paddlemix.weights.dtypes import STORED_DTYPES
from paddlemix.weights.pickled import Calls, Name, PickleRefusal, Span, read_pickle
from paddlemix.weights.stored_tensor import MOST_AXES, MOST_NUMBERS, MOST_TENSORS, StoredTensor

# Numpy's name -> ours. Paddle writes bfloat16 as the unsigned integers of the same bits, or as ml_dtypes' type.
_DTYPES = {"f8": "float64", "f4": "float32", "f2": "float16", "u2": "bfloat16", "ml_dtypes.bfloat16": "bfloat16"}
_AS_SAFETENSORS = "save a model's state dict alone, as safetensors"
# Paddle puts a table of its own names beside the tensors.
_OWN_NAMES = "StructuredToParameterName@@"


@dataclass(slots=True)
class _Dtype:
    code: str
    is_little: bool = False

    def set_state(self, state: Any) -> None:
        if type(state) is not tuple:
            raise TypeError("no state")
        self.is_little = state[1] == "<"


@dataclass(slots=True)
class _Array:
    shape: tuple[int, ...] = ()
    dtype: str = ""
    by_columns: bool = False
    numbers: Span | None = None

    def set_state(self, state: Any) -> None:
        if type(state) is not tuple:
            raise TypeError("no state")
        _version, shape, dtype, is_fortran, numbers = state
        if type(dtype) is not _Dtype or dtype.code not in _DTYPES or not dtype.is_little:
            raise PickleRefusal(
                f"holds an array that is not of little-endian floating-point numbers; {_AS_SAFETENSORS}"
            )
        if type(shape) is not tuple or len(shape) > MOST_AXES or type(is_fortran) is not bool:
            raise TypeError("no array")
        if is_fortran and len(shape) != 2:
            raise PickleRefusal(
                f"holds an array that lies neither row by row nor, as a matrix, column by column; {_AS_SAFETENSORS}"
            )
        if type(numbers) is not Span or not all(type(size) is int and 0 <= size < MOST_NUMBERS for size in shape):
            raise TypeError("no array")
        self.shape, self.dtype, self.numbers = shape, _DTYPES[dtype.code], numbers
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
        with open_regular(file) as opened:
            found = read_pickle(opened, _CALLS)
        if type(found) is not dict:
            raise PickleRefusal(f"holds no dict of tensors; {_AS_SAFETENSORS}")
        found.pop(_OWN_NAMES, None)
        if len(found) > MOST_TENSORS:
            raise PickleRefusal(f"holds {len(found)} tensors, more than any model; fetch it again")
        return [_place(file, name, value) for name, value in found.items()]
    except PickleRefusal as error:
        raise ValueError(f"{file}: {error}.") from error


def _place(file: Path, name: str, value: Any) -> StoredTensor:
    # A tensor is (its own name, array), an array in a state dict stands for itself.
    array = value[1] if type(value) is tuple and len(value) == 2 else value
    if type(array) is not _Array or array.numbers is None:
        raise PickleRefusal(f"{brief(name)} is no tensor; {_AS_SAFETENSORS}")
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
        named = brief(str(array_type)) if type(array_type) is Name else "something"
        raise PickleRefusal(f"asks to make {named}; {_AS_SAFETENSORS}")
    return _Array()


def _dtype(code: Any, *_flags: Any) -> _Dtype:
    if type(code) not in (str, Name):
        raise TypeError("no dtype")
    return _Dtype(str(code))


def _pair(items: Any) -> tuple:
    if type(items) is not tuple or len(items) != 2:
        raise TypeError("no name with its array")
    return items


_CALLS: Calls = {
    "builtins.tuple": _pair,  # what `paddle.save` makes of a tensor
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,  # from numpy 2 on
    "numpy.dtype": _dtype,
}
