"""The CUDA ops' C interface (`external_ops/cuda/c_api.h`) through ctypes, on arrays of any library."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

DTYPES = {"float32": 0, "bfloat16": 1, "float16": 2}
STATISTICS, GRADIENTS = 1, 2
EPSILON = 1e-6
# Arguments of each entry point: p pointer, l int64, i int, f float.
SIGNATURES = {
    "rms_norm": "ppppppllfpp",
    "rms_norm_grad": "pppppppppllpp",
    "layer_norm": "ppppppllfpp",
    "layer_norm_grad": "pppppppppllpp",
    "norm_scratch": "ll",
    "rotary": "pippliiip",
    "swiglu": "ppplip",
    "swiglu_grad": "ppppplip",
    "activation": "ipplip",
    "activation_grad": "ippplip",
    "cross_entropy_scratch": "pi",
    "linear_cross_entropy": "pip",
    "cost": "pplpp",
    "scale": "pplip",
    "cached_attention_scratch": "p",
    "cached_attention": "pip",
    "quantized_linear_scratch": "pi",
    "quantized_linear": "pip",
    "dequantize": "pllllpip",
}
_TYPES = {"p": ctypes.c_void_p, "l": ctypes.c_int64, "i": ctypes.c_int, "f": ctypes.c_float}


class RotaryPart(ctypes.Structure):
    """PaddlemixRotaryPart."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("x_stride", ctypes.c_int64),
        ("y_stride", ctypes.c_int64),
        ("heads", ctypes.c_int32),
        ("turned", ctypes.c_int32),
    )


class NormDtypes(ctypes.Structure):
    """PaddlemixNormDtypes."""

    _fields_ = tuple((name, ctypes.c_int32) for name in ("x", "branch", "y", "weight", "bias"))


class CrossEntropy(ctypes.Structure):
    """PaddlemixCrossEntropy."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("hidden", "weight", "target", "scale", "statistics")),
        *((name, ctypes.c_void_p) for name in ("hidden_grad", "weight_grad", "scratch")),
        *((name, ctypes.c_int64) for name in ("rows", "size", "vocabulary", "first_token", "rows_at_once")),
        *((name, ctypes.c_int32) for name in ("transposed", "phases", "wide_weight_grad", "tf32")),
    )


class CachedAttention(ctypes.Structure):
    """PaddlemixCachedAttention."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("query", "key", "value", "keys", "values")),
        *((name, ctypes.c_void_p) for name in ("starts", "rows", "y", "scratch")),
        *((name, ctypes.c_int64) for name in ("batch", "heads", "groups", "size", "capacity", "length")),
    )


class Codes(ctypes.Structure):
    """PaddlemixQuantizedWeight."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("codes", "values", "scales", "zeros")),
        *((name, ctypes.c_int64) for name in ("outputs", "inputs", "block")),
        ("bits", ctypes.c_int32),
    )


class QuantizedProduct(ctypes.Structure):
    """PaddlemixQuantizedLinear."""

    _fields_ = (
        ("weight", Codes),
        *((name, ctypes.c_void_p) for name in ("x", "bias", "y", "scratch")),
        *((name, ctypes.c_int64) for name in ("rows", "at_once")),
        *((name, ctypes.c_int32) for name in ("backwards", "tf32")),
    )


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight [outputs, inputs] as codes.

    Attributes:
        shape: outputs and inputs.
        block: numbers that share a scale.
        codes: uint8[outputs * inputs * bits / 8].
        values: float32[256, 8 / bits].
        scales: float32[blocks].
        zeros: float32[blocks], or None.
    """

    shape: tuple[int, int]
    block: int
    codes: Any
    values: Any
    scales: Any
    zeros: Any = None


class Memory(Protocol):
    """Arrays where the library computes. A dtype is a name: those of DTYPES, int64, int32 or uint8."""

    stream: int

    def put(self, values: np.ndarray, dtype: str, shift: int = 0) -> Any:
        """Copy, rounded to the dtype; the copy begins `shift` numbers after an aligned address."""

    def empty(self, shape: Sequence[int], dtype: str) -> Any:
        """Make an array whose numbers nobody may rely on."""

    def address(self, array: Any) -> int:
        """Return the address of the first number."""

    def dtype(self, array: Any) -> str:
        """Return the name of its dtype."""


class CudaOps:
    """The ops: each forward gives outputs and what its backward needs."""

    def __init__(self, path: str | Path, memory: Memory):
        """Load the library.

        Args:
            path: of the library.
            memory: where it computes.
        """
        self.memory = memory
        self._library = ctypes.CDLL(str(path))
        self._library.paddlemix_cuda_error.restype = ctypes.c_char_p
        for name, letters in SIGNATURES.items():
            entry = self._entry(name)
            entry.argtypes = [_TYPES[letter] for letter in letters]
            entry.restype = ctypes.c_int64 if name.endswith("scratch") else ctypes.c_int

    def _entry(self, name: str) -> Any:
        return getattr(self._library, f"paddlemix_cuda_{name}")

    def call(self, name: str, *arguments: Any) -> int:
        """Call an entry point; arrays go in as their addresses.

        Raises:
            RuntimeError: it failed; the library's own words.
        """
        plain = (int, float, type(None), ctypes.Array, ctypes._Pointer)
        status = self._entry(name)(*(x if isinstance(x, plain) else self.memory.address(x) for x in arguments))
        if status < 0:
            raise RuntimeError(f"{name}: {self._library.paddlemix_cuda_error().decode()}")
        return status

    def like(self, array: Any) -> Any:
        """Make an empty array of the same shape and dtype."""
        return self.memory.empty(array.shape, self.memory.dtype(array))

    def _scratch(self, size: int) -> Any:
        return self.memory.empty([max(size, 1)], "uint8")

    def _floats(self, *shape: int) -> Any:
        return self.memory.empty(shape, "float32")

    def _where(self, array: Any) -> tuple[int, int]:
        """Return what ends every call: dtype and stream."""
        return DTYPES[self.memory.dtype(array)], self.memory.stream

    def _norm_dtypes(self, x: Any, y: Any, weight: Any, *, branch: Any = None, bias: Any = None) -> Any:
        """Return a pointer to the dtypes of a norm's arrays; those that are not there are as `x`."""
        arrays = (x if array is None else array for array in (x, branch, y, weight, bias))
        return ctypes.pointer(NormDtypes(*(DTYPES[self.memory.dtype(array)] for array in arrays)))

    def rms_norm(self, x: Any, weight: Any, result: str | None = None) -> tuple[list, tuple]:
        """Normalise rows [N, D]; the result is of dtype `result`, or of that of the rows."""
        (rows, size), y = x.shape, self.memory.empty(x.shape, result or self.memory.dtype(x))
        inverse, dtypes = self._floats(rows), self._norm_dtypes(x, y, weight)
        given = (x, None, weight, None, y, inverse)
        self.call("rms_norm", *given, rows, size, EPSILON, dtypes, self.memory.stream)
        return [y], (x, weight, inverse)

    def rms_norm_grad(self, saved: tuple, y_grad: Any) -> list:
        """Differentiate by x and weight."""
        return self._rms_norm_grad(saved, y_grad, None, None)

    def _rms_norm_grad(self, saved: tuple, y_grad: Any, sum_grad: Any, branch_grad: Any) -> list:
        x, weight, inverse = saved
        grads, scratch = [self.like(x), self.like(weight)], self._scratch(self.call("norm_scratch", *x.shape))
        dtypes = self._norm_dtypes(x, y_grad, weight, branch=branch_grad)
        given = (x, weight, inverse, y_grad, sum_grad, grads[0], branch_grad, grads[1], scratch)
        self.call("rms_norm_grad", *given, *x.shape, dtypes, self.memory.stream)
        return grads

    def add_rms_norm(self, x: Any, branch: Any, weight: Any, result: str | None = None) -> tuple[list, tuple]:
        """Add rows [N, D]; return the sum, and its norm, which is of dtype `result`, or of that of the rows."""
        (rows, size), total = x.shape, self.like(x)
        y, inverse = self.memory.empty(x.shape, result or self.memory.dtype(x)), self._floats(rows)
        dtypes = self._norm_dtypes(x, y, weight, branch=branch)
        given = (x, branch, weight, total, y, inverse)
        self.call("rms_norm", *given, rows, size, EPSILON, dtypes, self.memory.stream)
        return [total, y], (total, weight, inverse, self.memory.dtype(branch))

    def add_rms_norm_grad(self, saved: tuple, sum_grad: Any, y_grad: Any) -> list:
        """Differentiate by both addends, and by weight."""
        *saved, branch = saved
        is_mixed = branch != self.memory.dtype(saved[0])
        branch_grad = self.memory.empty(sum_grad.shape, branch) if is_mixed else None
        x_grad, weight_grad = self._rms_norm_grad(tuple(saved), y_grad, sum_grad, branch_grad)
        return [x_grad, branch_grad if is_mixed else x_grad, weight_grad]

    def layer_norm(self, x: Any, weight: Any, bias: Any, result: str | None = None) -> tuple[list, tuple]:
        """Normalise rows [N, D]; the result is of dtype `result`, or of that of the rows."""
        (rows, size), y = x.shape, self.memory.empty(x.shape, result or self.memory.dtype(x))
        mean, inverse = self._floats(rows), self._floats(rows)
        dtypes = self._norm_dtypes(x, y, weight, bias=bias)
        given = (x, weight, bias, y, mean, inverse)
        self.call("layer_norm", *given, rows, size, EPSILON, dtypes, self.memory.stream)
        return [y], (x, weight, bias, mean, inverse)

    def layer_norm_grad(self, saved: tuple, y_grad: Any) -> list:
        """Differentiate by x, weight and bias."""
        x, weight, bias, mean, inverse = saved
        grads = [self.like(one) for one in (x, weight, bias)]
        scratch = self._scratch(self.call("norm_scratch", *x.shape))
        dtypes = self._norm_dtypes(x, y_grad, weight, bias=bias)
        given = (x, weight, mean, inverse, y_grad, *grads, scratch)
        self.call("layer_norm_grad", *given, *x.shape, dtypes, self.memory.stream)
        return grads

    def _rotate(self, x: Any, cos: Any, sin: Any, backwards: bool) -> Any:
        (tokens, heads, size), y = x.shape, self.like(x)
        part = RotaryPart(self.memory.address(x), self.memory.address(y), heads * size, heads * size, heads, 1)
        angles = (ctypes.pointer(part), 1, cos, sin, tokens, size // 2, int(backwards))
        self.call("rotary", *angles, *self._where(x))
        return y

    def rotary(self, x: Any, cos: Any, sin: Any) -> tuple[list, tuple]:
        """Turn heads [N, H, D] by angles [N, D / 2]."""
        return [self._rotate(x, cos, sin, False)], (cos, sin)

    def rotary_grad(self, saved: tuple, y_grad: Any) -> list:
        """Differentiate by x."""
        return [self._rotate(y_grad, *saved, True)]

    def rotary_split(self, qkv: Any, cos: Any, sin: Any) -> tuple[list, tuple]:
        """Turn query and key of [N, 3, H, D], and copy the value as it is, in one pass."""
        tokens, _, heads, size = qkv.shape
        outputs = [self.memory.empty([tokens, heads, size], self.memory.dtype(qkv)) for _ in range(3)]
        self._turn_parts(qkv, outputs, cos, sin, backwards=False)
        return outputs, (cos, sin)

    def rotary_split_grad(self, saved: tuple, *grads: Any) -> list:
        """Differentiate by qkv."""
        tokens, heads, size = grads[0].shape
        together = self.memory.empty([tokens, 3, heads, size], self.memory.dtype(grads[0]))
        self._turn_parts(together, list(grads), *saved, backwards=True)
        return [together]

    def _turn_parts(self, together: Any, apart: list, cos: Any, sin: Any, *, backwards: bool) -> None:
        tokens, _, heads, size = together.shape
        width, bytes_each = heads * size, 4 if self.memory.dtype(together) == "float32" else 2
        parts = (RotaryPart * 3)()
        for index, array in enumerate(apart):
            inside = self.memory.address(together) + index * width * bytes_each, 3 * width
            outside = self.memory.address(array), width
            (x, x_stride), (y, y_stride) = (outside, inside) if backwards else (inside, outside)
            parts[index] = RotaryPart(x, y, x_stride, y_stride, heads, int(index < 2))
        self.call("rotary", parts, 3, cos, sin, tokens, size // 2, int(backwards), *self._where(together))

    def swiglu(self, gate: Any, up: Any) -> tuple[list, tuple]:
        """Gate arrays of any shape."""
        y = self.like(gate)
        self.call("swiglu", gate, up, y, _count(gate), *self._where(gate))
        return [y], (gate, up)

    def swiglu_grad(self, saved: tuple, y_grad: Any) -> list:
        """Differentiate by gate and up."""
        grads = [self.like(x) for x in saved]
        self.call("swiglu_grad", *saved, y_grad, *grads, _count(y_grad), *self._where(y_grad))
        return grads

    def activation(self, kind: int, x: Any) -> tuple[list, tuple]:
        """Activate an array of any shape: 1 is gelu, 2 is quick_gelu."""
        y = self.like(x)
        self.call("activation", kind, x, y, _count(x), *self._where(x))
        return [y], (kind, x)

    def activation_grad(self, saved: tuple, y_grad: Any) -> list:
        """Differentiate by x."""
        (kind, x), x_grad = saved, self.like(y_grad)
        self.call("activation_grad", kind, x, y_grad, x_grad, _count(x), *self._where(x))
        return [x_grad]

    def linear_cross_entropy(
        self,
        hidden: Any,
        weight: Any,
        target: Any,
        scale: Any,
        *,
        transposed: bool = False,
        rows_at_once: int = 0,
        with_gradients: bool = True,
        weight_grad: str | None = None,
        tf32: bool = False,
    ) -> tuple[list, tuple]:
        """Compute the loss of [N, D] and [D, V], or [V, D] where `transposed`; the gradients come with it.

        That of the weight is of dtype `weight_grad`, which is float32, or of that of the weight.
        """
        of_weight = self.memory.empty(weight.shape, weight_grad or self.memory.dtype(weight))
        grads = [self.like(hidden), of_weight] if with_gradients else [None, None]
        statistics, loss = self._floats(3, hidden.shape[0]), self._floats()
        phases = STATISTICS | GRADIENTS if with_gradients else STATISTICS
        choice = {"transposed": transposed, "rows_at_once": rows_at_once, "tf32": tf32}
        self.cross_entropy_phase(phases, hidden, weight, target, scale, statistics, grads, **choice)
        self.call("cost", statistics, scale, hidden.shape[0], loss, self.memory.stream)
        return [loss], tuple(grads)

    def cross_entropy_phase(
        self,
        phases: int,
        hidden: Any,
        weight: Any,
        target: Any,
        scale: Any,
        statistics: Any,
        grads: list,
        *,
        transposed: bool = False,
        rows_at_once: int = 0,
        first_token: int = 0,
        tf32: bool = False,
    ) -> None:
        """Call the library once: on the whole vocabulary or, from `first_token` on, on a slice."""
        given = (None if x is None else self.memory.address(x) for x in (hidden, weight, target, scale, statistics))
        out = (None if x is None else self.memory.address(x) for x in grads)
        vocabulary = weight.shape[0 if transposed else 1]
        is_wide = grads[1] is not None and self.memory.dtype(grads[1]) == "float32"
        shape = (*hidden.shape, vocabulary, first_token, rows_at_once)
        flags = (int(transposed), phases, int(is_wide), int(tf32))
        op, (dtype, stream) = CrossEntropy(*given, *out, None, *shape, *flags), self._where(hidden)
        scratch = self._scratch(self.call("cross_entropy_scratch", ctypes.pointer(op), dtype))
        op.scratch = self.memory.address(scratch)
        self.call("linear_cross_entropy", ctypes.pointer(op), dtype, stream)

    def linear_cross_entropy_grad(self, saved: tuple, loss_grad: Any) -> list:
        """Multiply what the forward pass left by the upstream gradient, in place: by hidden states and weight."""
        for grad in saved:
            self.call("scale", grad, loss_grad, _count(grad), *self._where(grad))
        return list(saved)

    def cached_attention(
        self,
        query: Any,
        key: Any,
        value: Any,
        keys: Any,
        values: Any,
        length: int,
        starts: Any = None,
        rows: Any = None,
    ) -> Any:
        """Attend one token a row [B, H, D] to a cache [B, capacity, G, D], which is written to; no gradients."""
        y = self.like(query)
        given = (None if x is None else self.memory.address(x) for x in (query, key, value, keys, values, starts, rows))
        (batch, heads, size), (_, capacity, groups, _) = query.shape, keys.shape
        shape = (batch, heads, groups, size, capacity, length)
        op = CachedAttention(*given, self.memory.address(y), None, *shape)
        scratch = self._scratch(self.call("cached_attention_scratch", ctypes.pointer(op)))
        op.scratch = self.memory.address(scratch)
        self.call("cached_attention", ctypes.pointer(op), *self._where(query))
        return y

    def _codes(self, weight: QuantizedWeight) -> Codes:
        arrays = (weight.codes, weight.values, weight.scales, weight.zeros)
        places = (None if array is None else self.memory.address(array) for array in arrays)
        return Codes(*places, *weight.shape, weight.block, 8 // weight.values.shape[1])

    def quantized_linear(
        self, x: Any, weight: QuantizedWeight, bias: Any = None, *, at_once: int = 0, tf32: bool = False
    ) -> tuple[list, tuple]:
        """Multiply rows [N, inputs] with a weight of codes; `bias` [outputs] is of their dtype."""
        y = self._multiply(x, weight, bias, weight.shape[0], at_once, tf32, backwards=False)
        return [y], (weight, at_once, tf32)

    def quantized_linear_grad(self, saved: tuple, y_grad: Any) -> list:
        """Differentiate by x."""
        weight, at_once, tf32 = saved
        return [self._multiply(y_grad, weight, None, weight.shape[1], at_once, tf32, backwards=True)]

    def _multiply(
        self,
        x: Any,
        weight: QuantizedWeight,
        bias: Any,
        size: int,
        at_once: int,
        tf32: bool,
        *,
        backwards: bool,
    ) -> Any:
        y = self.memory.empty([x.shape[0], size], self.memory.dtype(x))
        places = (None if array is None else self.memory.address(array) for array in (x, bias, y))
        flags = (int(backwards), int(tf32))
        op = QuantizedProduct(self._codes(weight), *places, None, x.shape[0], at_once, *flags)
        dtype, stream = self._where(x)
        scratch = self._scratch(self.call("quantized_linear_scratch", ctypes.pointer(op), dtype))
        op.scratch = self.memory.address(scratch)
        self.call("quantized_linear", ctypes.pointer(op), dtype, stream)
        return y

    def dequantize(self, weight: QuantizedWeight, outputs: range, inputs: range, dtype: str) -> Any:
        """Put a part of a weight into floating point."""
        y = self.memory.empty([len(outputs), len(inputs)], dtype)
        part = (outputs.start, len(outputs), inputs.start, len(inputs))
        self.call("dequantize", ctypes.pointer(self._codes(weight)), *part, y, *self._where(y))
        return y


def _count(array: Any) -> int:
    return int(np.prod(array.shape))
