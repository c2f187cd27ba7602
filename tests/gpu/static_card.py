"""Lets Paddle's CPU build make the static programs that a build for CUDA makes.

In a static program Paddle's own inference and its own automatic mixed precision decide shape and dtype of every value,
forward and backward; no kernel runs and no number is held, so that models have their published sizes. What a CPU build
does otherwise is put right here: where tensors are, the ops that only GPUs have, and those whose dtypes it checks by
its own kernels. Import it in a process of its own: Paddle is not put back.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import paddlemix  # isort: skip - before Paddle, which it prepares for
import numpy as np
import paddle
import paddle.nn.functional as F
from paddle.amp.auto_cast import AMP_LEVEL
from paddle.base import core

from paddlemix import handover
from paddlemix.models.layers import recompute, vision_tokens
from paddlemix.ops.tensors import built, lean
from paddlemix.ops.tensors.cards import cached_attention
from paddlemix.weights.loading import NoValues

del paddlemix

paddle.enable_static()

HALVES = (paddle.bfloat16, paddle.float16)
LARGEST_FLASH_HEAD = 256


@dataclass
class Stretch:
    """Ops of the program that stand for one that only a GPU has, or that are made for something else.

    Attributes:
        name: of what they stand for.
        inputs: what it is given, in the order of its arguments.
        outputs: what it gives.
        after: the number of the last op before.
        until: the number of the last op.
        formula_until: where a formula that is one op to autograd stands here, the number of the last op of its backward
            pass, which is computed ahead; those behind it let gradients through. Else 0.
    """

    name: str
    inputs: tuple[Any, ...]
    outputs: list[Any]
    after: int
    until: int
    formula_until: int = 0


@dataclass
class Card:
    """A GPU that computes nothing, and what a forward pass asked of it.

    Attributes:
        has_built_ops: whether `external_ops` was built for it.
        asked: by op that is built for CUDA, the dtypes that it would get, and whether it takes them.
        products: by the function that asks, the dtype in which a product is computed.
        cached: how often one token was attended to a cache by the built op.
        lengths: the tensors that said where its segments end.
        constants: tensors that were made of the host's numbers, but for those that are kept.
        stretches: ops that stand for others, in their order.
        repeated: what recomputing computes a second time.
    """

    has_built_ops: bool = True
    asked: Counter[tuple[str, str, bool]] = field(default_factory=Counter)
    products: Counter[tuple[str, str]] = field(default_factory=Counter)
    flash: Counter[tuple[int, bool, str]] = field(default_factory=Counter)
    cached: int = 0
    lengths: list[Any] = field(default_factory=list)
    constants: int = 0
    stretches: list[Stretch] = field(default_factory=list)
    repeated: list[Stretch] = field(default_factory=list)


class Place:
    """Where a GPU's tensors are."""

    def is_cpu_place(self) -> bool:
        return False

    def is_gpu_place(self) -> bool:
        return True


card = Card()
_known: dict[int, tuple[Any, np.ndarray]] = {}
_inside = [False]


def insert(new: Card) -> None:
    """Let what follows be asked of another card."""
    global card
    card = new
    _known.clear()  # values of the next program may lie where the last one's lay
    handover.forget_constants()
    for made_once in (cached_attention._ends_with_gaps, cached_attention._on_card):
        made_once.cache_clear()


def short(dtype: Any) -> str:
    """Name a dtype."""
    return str(dtype).rpartition(".")[2].lower()


def known(numbers: Any, dtype: str | None = None) -> Any:
    """Make a value of the program for numbers of the host."""
    array = np.asarray(numbers)
    dtype = dtype or {"float64": "float32"}.get(str(array.dtype), str(array.dtype))
    value = paddle.static.data(f"known{len(_known)}", list(array.shape), short(dtype))
    _known[id(value)] = value, array
    return value


def numbers_of(value: Any) -> Any:
    """Return what is known of a value of the program, from the host or from counting; None of all others."""
    op = value.get_defining_op()
    kind = None if op is None else op.name().removeprefix("pd_op.")
    if kind == "cast":
        return numbers_of(op.operands_source()[0])
    if kind == "arange":
        return np.arange(*map(_number, op.operands_source()))
    if kind == "scale":
        x, factor = op.operands_source()
        return numbers_of(x) * _number(factor)
    return next((numbers for one, numbers in _known.values() if one.is_same(value)), None)


def _number(value: Any) -> float:
    """Read a number that an op is given as a value."""
    return value.get_defining_op().attrs()["value"]


def last_op() -> int:
    """Return the number of the program's last op; ops that are made later have larger ones."""
    return paddle.static.default_main_program().global_block().back().id()


def as_one(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Let the card remember that what a function computes is one op on a GPU.

    Args:
        name: of the op.
        function: what stands for it.

    Returns:
        The same function; where it is called by another that stands for an op, it is a part of that one.
    """

    def run(*arguments: Any, **options: Any) -> Any:
        is_inside, before = _inside[0], last_op()
        _inside[0] = True
        try:
            results = function(*arguments, **options)
        finally:
            _inside[0] = is_inside
        if not is_inside:
            outputs = list(results) if isinstance(results, (list, tuple)) else [results]
            inputs = (*arguments, *options.values())
            card.stretches.append(Stretch(name, inputs, outputs, before, last_op()))
        return results

    return run


def _to_tensor(data: Any, dtype: Any = None, **unused: Any) -> Any:
    del unused
    card.constants += sys._getframe(1).f_code is not handover._kept.__wrapped__.__code__
    return known(data, dtype)


def _asking() -> str:
    """Name the function of ours that called into Paddle."""
    frame = sys._getframe(2)
    while "/paddlemix/" not in frame.f_code.co_filename:
        frame = frame.f_back
    return frame.f_code.co_name


def _without_autocast(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any, **options: Any) -> Any:
        with paddle.amp.auto_cast(False):
            return function(*arguments, **options)

    return run


def _matmul(x: Any, y: Any, *arguments: Any, **options: Any) -> Any:
    product = _paddle_matmul(x, y, *arguments, **options)
    card.products[_asking(), short(product.dtype)] += 1
    return product


def _linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """A GPU has one op for product and bias, which autocast takes to half precision together."""
    product = _paddle_matmul(x, weight)
    card.products[_asking(), short(product.dtype)] += 1
    return product if bias is None else _without_autocast(paddle.add)(product, bias.astype(product.dtype))


def _scatter(x: Any, index: Any, updates: Any) -> Any:
    if paddle.is_autocast_enabled() or x.dtype not in HALVES:
        return _paddle_scatter(x, index, updates)
    assert updates.dtype == x.dtype
    return paddle.index_put(x, (index,), updates)  # a CPU has no kernel in half precision for the op itself


def _where(condition: Any, x: Any, y: Any) -> Any:
    assert x.dtype == y.dtype
    return paddle.assign(y)


def _swiglu(gate: Any, up: Any) -> Any:
    assert gate.dtype == up.dtype
    return gate * up  # on none of autocast's lists either


def _layer_norm(x: Any, shape: Any, weight: Any, bias: Any, epsilon: float) -> Any:
    """Refuse what the kernel would refuse; its scales are of the dtype of `x`, or float32."""
    dtype = _paddle_layer_norm(x, shape, weight, bias, epsilon).dtype
    assert weight.dtype in (dtype, paddle.float32)
    return _without_autocast(_reaching)(_out_of_sight(x).astype(dtype), x, weight, bias)


def _refuse(q: Any, k: Any, v: Any) -> None:
    """Refuse what the kernel would refuse, of heads."""
    assert q.dtype == k.dtype == v.dtype, (q.dtype, k.dtype, v.dtype)
    assert q.dtype in HALVES, q.dtype
    assert k.shape == v.shape, (k.shape, v.shape)
    assert q.shape[-2] % k.shape[-2] == 0, (q.shape, k.shape)
    assert q.shape[-1] == k.shape[-1] <= LARGEST_FLASH_HEAD, (q.shape, k.shape)
    assert q.shape[-1] % 8 == 0, q.shape


def _flash_attention(q: Any, k: Any, v: Any, *, causal: bool = False) -> Any:
    """Attention over a batch of rows of one length."""
    assert F.flash_attention._select_sdp(q.shape[3]) == "flash_attn", "Paddle's function would compute with products"
    _refuse(q, k, v)
    assert len(q.shape) == len(k.shape) == 4, (q.shape, k.shape)
    assert q.shape[0] == k.shape[0], (q.shape, k.shape)
    assert not causal or q.shape[1] == k.shape[1], "which of fewer queries sees what depends on the kernel's version"
    card.flash[q.shape[3], causal, short(q.dtype)] += 1
    mixed = _without_autocast(lambda: q + (k + v).mean(axis=[1, 2], keepdim=True))()
    return mixed, None


def _flash_attn_unpadded(
    q: Any,
    k: Any,
    v: Any,
    cu_q: Any,
    cu_k: Any,
    longest_q: int,
    longest_k: int,
    scale: float,
    *,
    causal: bool = False,
) -> Any:
    """Attention over sequences that lie end to end."""
    _refuse(q, k, v)
    assert len(q.shape) == len(k.shape) == 3, (q.shape, k.shape)
    for x, ends, longest in ((q, cu_q, longest_q), (k, cu_k, longest_k)):
        assert ends.dtype == paddle.int32, ends.dtype
        assert len(ends.shape) == 1, ends.shape
        assert type(longest) is int, longest
        numbers = numbers_of(ends).tolist()
        steps = [after - before for before, after in pairwise(numbers)]
        assert numbers[0] == 0 and numbers[-1] == x.shape[0], (numbers, x.shape)
        assert min(steps) >= 0 and max(steps) <= longest, (numbers, longest)
    assert cu_q.shape == cu_k.shape, (cu_q, cu_k)
    assert cu_q is cu_k or not causal, "which of fewer queries sees what depends on the kernel's version"
    assert type(scale) is float, scale
    card.flash[q.shape[2], causal, short(q.dtype)] += 1
    for ends in {id(cu_q): cu_q, id(cu_k): cu_k}.values():
        if not any(ends.is_same(other) for other in card.lengths):
            card.lengths.append(ends)
    mixed = _without_autocast(lambda: q + (k + v).mean(axis=[0, 1], keepdim=True))()
    return mixed, None


def _run_twice(function: Callable[[Any], Any], x: Any) -> Any:
    """Compute twice, the second time as Paddle does: with the first time's autocast put together again."""
    before = function(x).get_defining_op().id()
    attributes = core._get_amp_attrs()
    white, black = core._get_amp_op_list()
    with paddle.amp.auto_cast(
        attributes._amp_level != AMP_LEVEL.O0,
        custom_white_list=white,
        custom_black_list=black,
        level="O2" if attributes._amp_level == AMP_LEVEL.O2 else "O1",
        dtype="float16" if attributes._amp_dtype == "float16" else "bfloat16",
    ):
        again = function(x)
    card.repeated.append(Stretch("repeated", (x,), [again], before, last_op()))
    return again


def _wait(value: Any, *unused: Any, **options: Any) -> None:
    raise AssertionError(f"the host would wait for the card to compute {value}")


def _takes(tensor: Any, *others: Any, on_cuda: bool = False, is_mixed: bool = False) -> bool:
    is_there = _really_takes(tensor, *others, on_cuda=on_cuda, is_mixed=is_mixed)
    if on_cuda:
        given = [one.dtype for one in (tensor, *others) if one is not None]
        fits = built.fits_cuda(given, is_mixed=is_mixed)
        card.asked[sys._getframe(1).f_code.co_name, " ".join(map(short, given)), fits] += 1
    return is_there


def _scaled(x: Any, weight: Any, bias: Any = None) -> Any:
    return x * weight if bias is None else x * weight + bias


def _rows(x: Any) -> Any:
    return paddle.zeros([int(np.prod(x.shape[:-1]))], "float32")


def _add_rms_norm(x: Any, residual: Any, weight: Any, epsilon: float) -> list[Any]:
    assert x.dtype == residual.dtype == weight.dtype
    total = x + residual
    return [total, _scaled(total, weight), _rows(x)]


def _mixed_rms_norm(x: Any, weight: Any, epsilon: float, code: int) -> list[Any]:
    return [_mixed(code, x, weight), _rows(x)]


def _mixed_layer_norm(x: Any, weight: Any, bias: Any, epsilon: float, code: int) -> list[Any]:
    return [_mixed(code, x, weight, bias), _rows(x), _rows(x)]


def _mixed_add_rms_norm(
    x: Any, residual: Any, weight: Any, epsilon: float, code: int, x_code: int, residual_code: int
) -> list[Any]:
    assert [x_code, residual_code] == [built.code_of(x.dtype), built.code_of(residual.dtype)]
    wide = x.dtype if x.dtype == residual.dtype else paddle.float32
    total = x.astype(wide) + residual.astype(wide)
    return [total, _mixed(code, total, weight), _rows(x)]


def _mixed(code: int, x: Any, *scales: Any) -> Any:
    """Refuse a mix that no kernel takes; give rows of the result's dtype."""
    dtype = built.CUDA_DTYPES[code]
    assert built.fits_cuda({dtype, x.dtype, *(one.dtype for one in scales)}, is_mixed=True), (dtype, x, scales)
    return _reaching(_out_of_sight(x).astype(dtype), x, *scales)


def _head_loss(hidden: Any, weight: Any, targets: Any, weights: Any, *flags: bool) -> list[Any]:
    assert weight.dtype in (hidden.dtype, paddle.float32)
    card.products["linear_cross_entropy", short(hidden.dtype)] += 1
    return [(hidden.mean().astype("float32") + weight.mean().astype("float32")) * weights.sum()]


def _cached_attention(
    query: Any, key: Any, value: Any, keys: Any, values: Any, starts: Any, rows: Any, length: int
) -> list[Any]:
    assert query.dtype == key.dtype == value.dtype == keys.dtype == values.dtype
    assert length < keys.shape[1] and (starts is None or starts.dtype == paddle.int32) and rows is None
    card.cached += 1
    return [query + (key + value).mean(axis=2, keepdim=True)]


def _quantized_linear(
    x: Any, codes: Any, values: Any, scales: Any, zeros: Any, bias: Any, outputs: int, inputs: int, block: int
) -> list[Any]:
    assert x.shape[-1] == inputs and x.dtype in built.CUDA_DTYPES
    codes_in_byte = values.shape[1]
    assert codes.dtype == paddle.uint8 and codes.shape == [-(-outputs * inputs // codes_in_byte)]
    for factors in (scales, zeros):
        fits = factors is None or (factors.dtype, factors.shape) == (paddle.float32, [-(-outputs * inputs // block)])
        assert fits, (factors, outputs, inputs, block)
    assert values.dtype == paddle.float32 and values.shape == [256, codes_in_byte]
    assert bias is None or (bias.dtype, bias.shape) == (x.dtype, [outputs])
    card.products["quantized_linear", short(x.dtype)] += 1
    y = paddle.zeros([*x.shape[:-1], outputs], x.dtype)
    return [_reaching(y if bias is None else y + bias, x)]


# Ops with the inputs, the outputs and the dtypes of the built ones.
BUILT: dict[str, Callable[..., list[Any]]] = {
    "rms_norm": lambda x, weight, epsilon: [_scaled(x, weight), _rows(x)],
    "add_rms_norm": _add_rms_norm,
    "layer_norm": lambda x, weight, bias, epsilon: [_scaled(x, weight, bias), _rows(x), _rows(x)],
    "mixed_rms_norm": _mixed_rms_norm,
    "mixed_add_rms_norm": _mixed_add_rms_norm,
    "mixed_layer_norm": _mixed_layer_norm,
    "rotary": lambda x, cos, sin: [paddle.scale(x, 2.0)],
    "rotary_pair": lambda query, key, cos, sin: [paddle.scale(query, 2.0), paddle.scale(key, 2.0)],
    "rotary_split": lambda qkv, cos, sin: [paddle.scale(one, 2.0) for one in qkv.unbind(axis=1)],
    "swiglu": lambda gate, up: [gate * up],
    "activation": lambda x, kind: [paddle.scale(x, 2.0)],
    "linear_cross_entropy": _head_loss,
    "cached_attention": _cached_attention,
    "quantized_linear": _quantized_linear,
}


class _Saving:
    """What a formula gets as its context.

    Attributes:
        saved: for its backward pass.
    """

    def save_for_backward(self, *tensors: Any) -> None:
        self.saved = tensors

    def saved_tensor(self) -> tuple[Any, ...]:
        return self.saved


def _formula(formula: Any) -> Callable[..., Any]:
    """Run a formula out of autograd's sight, its backward pass right behind, and let gradients reach its inputs."""

    def run(*arguments: Any) -> Any:
        given = [one for one in arguments if isinstance(one, paddle.pir.Value)]
        out_of_sight = dict(zip(map(id, given), as_one("hiding", _all_out_of_sight)(*given), strict=True))
        hidden = [out_of_sight.get(id(one), one) for one in arguments]
        context = _Saving()
        y = formula.forward(context, *hidden)
        before = last_op()
        context.asked = [not one.stop_gradient for one in given]
        _without_autocast(formula.backward)(context, y)
        formula_until = last_op()
        result = _without_autocast(_reaching)(y, *given)
        # What was saved is the inputs themselves, or was made by the formula.
        pairs = list(zip(arguments, hidden, strict=True))
        saved = tuple(next((a for a, b in pairs if b is one), one) for one in context.saved)
        card.stretches.append(Stretch("formula", saved, [result], before, last_op(), formula_until))
        return result

    return run


def _reaching(y: Any, *inputs: Any) -> Any:
    """Let gradients flow from a value to inputs, for which nothing is kept."""
    return sum(((one.sum() * 0).astype(y.dtype) for one in inputs if not one.stop_gradient), y)


def _all_out_of_sight(*values: Any) -> list[Any]:
    return list(map(_out_of_sight, values))


def _out_of_sight(value: Any) -> Any:
    same = paddle.assign(value)
    same.stop_gradient = True
    return same


def on_card(*, is_forward: bool) -> None:
    """Put values on the GPU, where a forward pass sees them, or where Paddle's own code for gradients expects them."""
    place = Place() if is_forward else paddle.CPUPlace()
    paddle.pir.Value.place = property(lambda value: place)


_paddle_matmul, _paddle_scatter, _paddle_layer_norm = paddle.matmul, paddle.scatter, F.layer_norm
_really_takes = built.takes
paddle.pir.Value.is_leaf = property(lambda value: False)
paddle.pir.Value.is_contiguous = lambda value: True
paddle.pir.Value.size = property(lambda value: int(np.prod(value.shape)))
for reading in ("nonzero", "tolist", "numpy", "item"):
    setattr(paddle.pir.Value, reading, _wait)
paddle.nn.Layer.register_buffer = lambda self, name, tensor, persistable=True: object.__setattr__(self, name, tensor)
paddle.to_tensor, paddle.matmul = _to_tensor, _matmul
paddle.scatter, paddle.where = as_one("scatter", _scatter), as_one("where", _where)
F.linear, F.swiglu = as_one("linear", _linear), as_one("swiglu", _swiglu)
F.layer_norm = as_one("paddle_layer_norm", _layer_norm)
F.flash_attention.flash_attention = as_one("flash_attention", _flash_attention)
F.flash_attention.flash_attn_unpadded = as_one("flash_attention", _flash_attn_unpadded)
recompute.run_twice = _run_twice
built.takes, built._is_there, built.nothing = _takes, lambda *_: card.has_built_ops, lambda dtype="float32": None
built.run = lambda name, *arguments: as_one(name, _without_autocast(BUILT[name]))(*arguments)
# A program cannot write into what it was given.
cached_attention._write = lambda *_: None
# A program's parameters need an op that fills them.
NoValues.__call__ = lambda self, *arguments: paddle.nn.initializer.Constant()(*arguments)
for formula in (lean.norm.RMSNorm, lean.rotary.Rotation, lean.activation.QuickGELU):
    formula.apply = staticmethod(_formula(formula))
# Paddle has none of its kind in static programs.
vision_tokens.Meeting.apply = staticmethod(as_one("meeting", lambda *both: tuple(map(paddle.assign, both))))
