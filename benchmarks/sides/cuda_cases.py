"""What the CUDA ops are checked on: formulas, odd shapes, and how far a result may be off.

The formulas call only what PyTorch's and Paddle's tensors have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
from cuda_library import DTYPES, EPSILON, CudaOps, QuantizedWeight

# Half the distance from 1 to the next number: what one rounding may be off by.
ROUNDING = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}


def rms_norm(x: Any, weight: Any) -> list:
    """Scale rows at unit root mean square."""
    return [x * (x.square().mean(-1, keepdim=True) + EPSILON).rsqrt() * weight]


def add_rms_norm(x: Any, residual: Any, weight: Any) -> list:
    """Compute the sum, and its norm."""
    return [x + residual, *rms_norm(x + residual, weight)]


def layer_norm(x: Any, weight: Any, bias: Any) -> list:
    """Scale and shift rows at mean 0 and variance 1."""
    centred = x - x.mean(-1, keepdim=True)
    return [centred * (centred.square().mean(-1, keepdim=True) + EPSILON).rsqrt() * weight + bias]


def rotary(x: Any, cos: Any, sin: Any) -> list:
    """Turn pairs; the angles are spread out: cos twice, -sin and sin."""
    return [x * cos + x.roll(x.shape[-1] // 2, -1) * sin]


def rotary_split(qkv: Any, cos: Any, sin: Any) -> list:
    """Turn queries and keys, leave values as they are."""
    return [*rotary(qkv[:, 0], cos, sin), *rotary(qkv[:, 1], cos, sin), qkv[:, 2] * 1]


def swiglu(gate: Any, up: Any) -> list:
    """Compute silu(gate) * up."""
    return [gate * gate.sigmoid() * up]


def gelu(x: Any) -> list:
    """Multiply x by the probability that a normal number is below it."""
    return [0.5 * x * (1 + (x * 0.5**0.5).erf())]


def quick_gelu(x: Any) -> list:
    """Compute x * sigmoid(1.702 x)."""
    return [x * (1.702 * x).sigmoid()]


def linear_cross_entropy(hidden: Any, weight: Any, wanted: Any, scale: Any) -> list:
    """Add up the costs times their scale; `wanted` is 1 at the targets, else 0."""
    logits = hidden.matmul(weight)
    return [((logits.logsumexp(-1) - (logits * wanted).sum(-1)) * scale).sum()]


def cached_attention(query: Any, key: Any, value: Any, keys: Any, values: Any, new: Any, hidden: Any) -> list:
    """Attend to a cache, into whose `new` place key and value go; what is `hidden` is 1, else 0."""
    (batch, heads, size), groups = query.shape, keys.shape[2]
    keys, values = keys * (1 - new) + key.unsqueeze(1) * new, values * (1 - new) + value.unsqueeze(1) * new
    shared = query.reshape([batch, 1, groups, heads // groups, size])
    weights = ((shared * keys.unsqueeze(3)).sum(-1) * size**-0.5).exp() * (1 - hidden)
    mixed = (weights.unsqueeze(-1) * values.unsqueeze(3)).sum(1) / weights.sum(1).unsqueeze(-1)
    return [mixed.reshape([batch, heads, size]), keys, values]


def quantized_linear(x: Any, weight: Any, bias: Any) -> list:
    """Multiply with what the codes stand for."""
    return [x.matmul(weight.t()) + bias]


@dataclass(frozen=True)
class Case:
    """One op on one set of inputs.

    Attributes:
        name: op and shape.
        arrays: inputs that have a gradient, float64.
        formula: the outputs of tensors of `arrays` and `constants`.
        constants: further inputs of the formula.
        forward: calls the library, on `arrays` and `extra` where it computes.
        backward: calls it with what forward saved, and the upstream gradients; None of an op without gradients.
        extra: further inputs of the library, with their dtypes.
        roundings: of the op's own dtype, on the way to a result.
        wide: which of `arrays` are float32, whatever dtype is checked.
        result: the dtype that `forward` is asked for: that which is checked, or float32; None does not ask.
    """

    name: str
    arrays: list[np.ndarray]
    formula: Callable[..., list]
    forward: Callable[..., tuple[list, tuple]]
    backward: Callable[..., list] | None
    constants: list[np.ndarray] = field(default_factory=list)
    extra: list[tuple[np.ndarray, str]] = field(default_factory=list)
    roundings: int = 1
    wide: tuple[int, ...] = ()
    result: Literal["checked", "float32"] | None = None


# Not of one number or two, which normalised are 1 or -1, with no gradient but rounding. Below, at and above what a
# warp, four warps and sixteen hold in registers; not a multiple of a load; none at all.
ROWS = [(0, 8), (1, 3), (3, 17), (5, 64), (2, 520), (3, 1030), (7, 2056), (2, 2051), (1, 16408)]
MIXED_ROWS = [(0, 8), (3, 17), (3, 520), (1, 2051)]
HEADS = [(0, 2, 16), (1, 1, 2), (3, 2, 6), (5, 3, 40), (2, 28, 128), (70, 2, 16)]
COUNTS = [(0,), (1,), (7,), (8,), (2051,), (3, 4104)]
# Tokens, size, vocabulary, rows at once, transposed.
HEADS_OF_MODEL = [
    (1, 3, 5, 0, False),
    (5, 16, 33, 2, False),
    (7, 8, 64, 3, True),
    (6, 24, 2060, 0, False),
    (9, 8, 2051, 4, True),
]
# Rows, query heads, key heads, size, capacity, tokens held: one part and several, heads of every width.
CACHES = [(2, 4, 2, 16, 9, 5), (1, 14, 2, 128, 300, 299), (3, 5, 5, 75, 20, 1), (1, 5, 1, 256, 150, 140)]
# Rows, outputs, inputs, bits, numbers of a block, whether blocks have zeros, outputs or inputs in floating point at a
# time: rows straight from the codes, and more than those; blocks that end within rows, with them, and behind them; more
# than a warp takes at once; what does not lie in packs of 8.
QUANTIZED = [
    (1, 6, 64, 4, 32, True, 0),
    (2, 5, 72, 4, 64, False, 0),
    (3, 7, 1288, 4, 184, True, 0),
    (9, 10, 600, 8, 120, True, 0),
    (16, 3, 264, 8, 264, False, 0),
    (0, 8, 64, 4, 64, False, 0),
    (17, 12, 96, 4, 32, True, 5),
    (20, 12, 128, 8, 128, False, 8),
    (19, 24, 40, 4, 64, True, 16),
    (2, 7, 15, 4, 64, False, 0),
    (18, 7, 15, 4, 15, True, 4),
    (5, 9, 24, 8, 12, True, 7),
]


def cases(ops: CudaOps, rng: np.random.Generator, start: str = "") -> Iterator[Case]:
    """Make all cases whose names begin so, with fresh random inputs."""
    for make, shapes in (
        (_norms, ROWS),
        (_mixed_norms, MIXED_ROWS),
        (_rotations, HEADS),
        (_elements, COUNTS),
        (_losses, HEADS_OF_MODEL),
        (_caches, CACHES),
        (_quantized, QUANTIZED),
    ):
        for shape in shapes:
            yield from (case for case in make(ops, rng, shape) if case.name.startswith(start))


def _norms(ops: CudaOps, rng: np.random.Generator, shape: tuple) -> Iterator[Case]:
    # Around 3: a layer norm that forgot its mean would show.
    x, more = (rng.standard_normal(shape) + 3 for _ in range(2))
    weight, bias = rng.standard_normal(shape[-1:]) + 2, rng.standard_normal(shape[-1:])
    yield Case(f"rms_norm {shape}", [x, weight], rms_norm, ops.rms_norm, ops.rms_norm_grad)
    add = (add_rms_norm, ops.add_rms_norm, ops.add_rms_norm_grad)
    yield Case(f"add_rms_norm {shape}", [x, more, weight], *add, roundings=2)
    yield Case(f"layer_norm {shape}", [x, weight, bias], layer_norm, ops.layer_norm, ops.layer_norm_grad)


def _mixed_norms(ops: CudaOps, rng: np.random.Generator, shape: tuple) -> Iterator[Case]:
    """Make the mixes of float32 and a narrower dtype that autocast brings: rows, branch, weight and bias, result."""
    x, branch = (rng.standard_normal(shape) + 3 for _ in range(2))
    weight, bias = rng.standard_normal(shape[-1:]) + 2, rng.standard_normal(shape[-1:])
    for name, of_rows, results in (
        ("rows", (0,), ("checked",)),
        ("weights", (1, 2), ("checked", "float32")),
        ("all", (0, 1, 2), ("checked",)),
    ):
        for result in results:
            kind = f"wide {name} to {result} {shape}"
            choice: dict[str, Any] = {"wide": of_rows, "result": result}
            yield Case(f"rms_norm {kind}", [x, weight], rms_norm, ops.rms_norm, ops.rms_norm_grad, **choice)
            layer = (layer_norm, ops.layer_norm, ops.layer_norm_grad)
            yield Case(f"layer_norm {kind}", [x, weight, bias], *layer, **choice)
    add = (add_rms_norm, ops.add_rms_norm, ops.add_rms_norm_grad)
    for name, wide, result in (
        ("rows and weight", (0, 2), "checked"),
        ("rows and weight", (0, 2), "float32"),
        ("rows", (0,), "checked"),
        ("weight", (2,), "checked"),
        ("all", (0, 1, 2), "checked"),
    ):
        kind = f"wide {name} to {result} {shape}"
        yield Case(f"add_rms_norm {kind}", [x, branch, weight], *add, roundings=2, wide=wide, result=result)


def _rotations(ops: CudaOps, rng: np.random.Generator, shape: tuple) -> Iterator[Case]:
    tokens, heads, size = shape
    angle = rng.uniform(-4, 4, (tokens, size // 2)).astype(np.float32)
    cos, sin = np.cos(angle), np.sin(angle)
    spread = [np.concatenate(both, -1)[:, None].astype(np.float64) for both in ((cos, cos), (-sin, sin))]
    given = {"constants": spread, "extra": [(cos, "float32"), (sin, "float32")]}
    x, qkv = rng.standard_normal(shape), rng.standard_normal((tokens, 3, heads, size))
    yield Case(f"rotary {shape}", [x], rotary, ops.rotary, ops.rotary_grad, **given)
    split = (rotary_split, ops.rotary_split, ops.rotary_split_grad)
    yield Case(f"rotary_split {shape}", [qkv], *split, **given)


def _elements(ops: CudaOps, rng: np.random.Generator, shape: tuple) -> Iterator[Case]:
    x, up = 3 * rng.standard_normal(shape), rng.standard_normal(shape)
    x.flat[:2] = [-100, 100][: x.size]
    yield Case(f"swiglu {shape}", [x, up], swiglu, ops.swiglu, ops.swiglu_grad)
    for kind, formula in ((1, gelu), (2, quick_gelu)):
        forward = lambda x, kind=kind: ops.activation(kind, x)  # noqa: E731
        yield Case(f"{formula.__name__} {shape}", [x], formula, forward, ops.activation_grad)


def _losses(ops: CudaOps, rng: np.random.Generator, shape: tuple) -> Iterator[Case]:
    rows, size, vocabulary, at_once, transposed = shape
    hidden, weight = rng.standard_normal((rows, size)), rng.standard_normal((size, vocabulary))
    target, scale = rng.integers(0, vocabulary, rows), rng.uniform(0.2, 1, rows).astype(np.float32)
    held = weight.T.copy() if transposed else weight

    def forward(hidden: Any, weight: Any, target: Any, scale: Any, weight_grad: str | None) -> tuple[list, tuple]:
        choice = {"transposed": transposed, "rows_at_once": at_once, "weight_grad": weight_grad}
        return ops.linear_cross_entropy(hidden, weight, target, scale, **choice)

    def formula(hidden: Any, weight: Any, wanted: Any, scale: Any) -> list:
        return linear_cross_entropy(hidden, weight.t() if transposed else weight, wanted, scale)

    for name, of_weight in (("", None), ("weight's gradient in float32 ", "float32")):
        yield Case(
            f"linear_cross_entropy {name}{shape}",
            [hidden, held],
            formula,
            partial(forward, weight_grad=of_weight),
            ops.linear_cross_entropy_grad,
            constants=[np.eye(vocabulary)[target], scale.astype(np.float64)],
            extra=[(target, "int64"), (scale, "float32")],
            roundings=2,
        )


def _caches(ops: CudaOps, rng: np.random.Generator, shape: tuple) -> Iterator[Case]:
    batch, heads, groups, size, capacity, length = shape
    arrays = [rng.standard_normal((batch, count, size)) for count in (heads, groups, groups)]
    arrays += [rng.standard_normal((batch, capacity, groups, size)) for _ in range(2)]
    places, starts = np.arange(capacity), np.arange(batch) % (length + 1)
    hidden = (places > length) | (places < starts[:, None])

    def forward(query: Any, key: Any, value: Any, keys: Any, values: Any, *more: Any) -> tuple[list, tuple]:
        mixed = ops.cached_attention(query, key, value, keys, values, length, *more)
        return [mixed, keys, values], ()

    constants = [(places == length)[None, :, None, None].astype(np.float64), hidden[..., None, None].astype(np.float64)]
    given = {"constants": constants, "extra": [(starts, "int32")], "roundings": 2}
    yield Case(f"cached_attention {shape}", arrays, cached_attention, forward, None, **given)


def _quantized(ops: CudaOps, rng: np.random.Generator, shape: tuple) -> Iterator[Case]:
    rows, outputs, inputs, bits, block, has_zeros, at_once = shape
    count, blocks = outputs * inputs, -(-outputs * inputs // block)
    codes, levels = rng.integers(0, 1 << bits, count), rng.uniform(-1, 1, 1 << bits).astype(np.float32)
    scales = rng.uniform(0.5, 2, blocks).astype(np.float32)
    zeros = rng.uniform(-0.5, 0.5, blocks).astype(np.float32) if has_zeros else None
    of = np.arange(count) // block
    numbers = levels[codes].astype(np.float64) - (0 if zeros is None else zeros[of])
    weight = (numbers * scales[of]).reshape(outputs, inputs)
    bias = rng.integers(-8, 8, outputs) / 4  # which every dtype holds

    def forward(x: Any, codes: Any, values: Any, scales: Any, *zeros: Any) -> tuple[list, tuple]:
        held = QuantizedWeight((outputs, inputs), block, codes, values, scales, *zeros)
        return ops.quantized_linear(x, held, ops.memory.put(bias, ops.memory.dtype(x)), at_once=at_once)

    extra = [(packed(codes, bits), "uint8"), (values_of_bytes(levels), "float32"), (scales, "float32")]
    yield Case(
        f"quantized_linear {shape}",
        [rng.standard_normal((rows, inputs))],
        quantized_linear,
        forward,
        ops.quantized_linear_grad,
        constants=[weight, bias],
        extra=[*extra, *([] if zeros is None else [(zeros, "float32")])],
        roundings=2,
    )


def packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Put codes of 4 or 8 bits into bytes, of two the first into the lower bits."""
    if bits == 8:
        return codes.astype(np.uint8)
    pairs = np.append(codes, np.zeros(len(codes) % 2, codes.dtype)).reshape(-1, 2).astype(np.uint8)
    return pairs[:, 0] | pairs[:, 1] << 4


def values_of_bytes(levels: np.ndarray) -> np.ndarray:
    """Spread what each code stands for over all bytes, float32[256, codes in a byte]."""
    return levels[:, None] if len(levels) == 256 else levels[np.stack([np.arange(256) & 15, np.arange(256) >> 4], 1)]


def check(
    case: Case, ops: CudaOps, dtype: str, gradients: Callable[..., tuple[list, list]], get: Callable, shift: int = 0
) -> float:
    """Run a case forward and backward and compare it with its formula in float64.

    Args:
        case: the op and its inputs.
        ops: the library.
        dtype: one of DTYPES.
        gradients: of a formula, float64 arrays, constants and upstream gradients: values, and a gradient per array.
        get: an array of the library as float64.
        shift: numbers by which inputs begin behind an aligned address.

    Returns:
        The largest error in parts of what is allowed: more than 1 is wrong.
    """
    assert dtype in DTYPES
    if case.result is not None and dtype == "float32":
        return 0.0  # nothing is mixed
    rng, memory = np.random.default_rng(5), ops.memory
    dtypes = ["float32" if index in case.wide else dtype for index in range(len(case.arrays))]
    inputs = [memory.put(array, kind, shift) for array, kind in zip(case.arrays, dtypes, strict=True)]
    exact = [get(array).copy() for array in inputs]  # an op may write to them
    asked = {} if case.result is None else {"result": dtype if case.result == "checked" else "float32"}
    outputs, saved = case.forward(*inputs, *(memory.put(array, kind) for array, kind in case.extra), **asked)
    # A loss is float32 whatever the rest is.
    upstream = [memory.put(rng.uniform(0.5, 2, out.shape), memory.dtype(out), shift) for out in outputs]
    grads = case.backward(saved, *upstream) if case.backward else []
    values, slopes = gradients(case.formula, exact, case.constants, [get(array) for array in upstream])
    slopes = slopes if case.backward else []
    if case.result is not None and [memory.dtype(grad) for grad in grads] != dtypes:
        raise AssertionError(f"{case.name}: gradients of other dtypes than {dtypes}")
    # Each result is as exact as its own dtype, unless something was rounded to a narrower one on the way.
    is_exact = case.result is not None and (case.roundings == 1 or 0 in case.wide)
    return max(
        _error(get(found), wanted, memory.dtype(found) if is_exact else dtype, case.roundings)
        for found, wanted in zip((*outputs, *grads), [*values, *slopes], strict=True)
    )


# Sums of thousands of numbers in float32: measured 5 roundings of the largest.
_SUM_ROUNDINGS = 32


def _error(found: np.ndarray, wanted: np.ndarray, dtype: str, roundings: int) -> float:
    if found.shape != wanted.shape:
        raise AssertionError(f"shape {found.shape}; expected {wanted.shape}")
    if not wanted.size:
        return 0.0
    if not np.isfinite(found).all():
        return float("inf")
    largest = np.abs(wanted).max()
    allowed = roundings * ROUNDING[dtype] * np.abs(wanted) + _floor(dtype, roundings) * largest + 1e-30
    return float((np.abs(found - wanted) / allowed).max())


def _floor(dtype: str, roundings: int) -> float:
    """Bound what a number near 0 may be off by, in parts of the largest: sums and, where the op rounds, those."""
    inner = ROUNDING[dtype] if roundings > 1 else 0.0
    return _SUM_ROUNDINGS * ROUNDING["float32"] + inner
