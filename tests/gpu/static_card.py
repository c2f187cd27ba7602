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
class Card:
    """A GPU that computes nothing, and what a forward pass asked of it.

    Attributes:
        has_built_ops: whether `external_ops` was built for it.
        asked: by op that is built for CUDA, the dtypes that it would get, and whether it takes them.
        products: by the function that asks, the dtype in which a product is computed.
        cached: how often one token was attended to a cache by the built op.
        lengths: the tensors that said where its segments end.
        kept: what formulas that are one op to autograd keep for the backward pass.
        constants: tensors that were made of the host's numbers, but for those that are kept.
    """

    has_built_ops: bool = True
    asked: Counter[tuple[str, str, bool]] = field(default_factory=Counter)
    products: Counter[tuple[str, str]] = field(default_factory=Counter)
    flash: Counter[tuple[int, bool, str]] = field(default_factory=Counter)
    cached: int = 0
    lengths: list[Any] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)
    constants: int = 0


class Place:
    """Where a GPU's tensors are."""

    def is_cpu_place(self) -> bool:
        return False

    def is_gpu_place(self) -> bool:
        return True


card = Card()
_known: dict[str, np.ndarray] = {}


def insert(new: Card) -> None:
    """Let what follows be asked of another card."""
    global card
    card = new
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
    name = f"known{len(_known)}"
    _known[name] = array
    return paddle.static.data(name, list(array.shape), short(dtype))


def numbers_of(value: Any) -> list[int] | None:
    """Return the numbers of the host that a value was made for; None of one that is computed, which has none."""
    op = value.get_defining_op()
    return _known[op.attrs()["name"]].tolist() if op.name() == "pd_op.data" else None


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
    """Keep what the kernel would: its input and two numbers a row."""
    dtype = _paddle_layer_norm(x, shape, weight, bias, epsilon).dtype
    assert weight.dtype in (dtype, paddle.float32)  # the kernel's
    x = x if x.dtype == dtype else _without_autocast(x.astype)(dtype)
    card.kept.append(x)
    return _without_autocast(_reaching)(_out_of_sight(x), x, weight, bias)


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
    card.kept += [q, k, v, mixed]
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
        numbers = numbers_of(ends)
        if numbers is None:  # Qwen-VL's images are all of one length, and counted on the card
            continue
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
    card.kept += [q, k, v, mixed]
    return mixed, None


def _run_twice(function: Callable[[Any], Any], x: Any) -> Any:
    """Compute twice, the second time as Paddle does: with the first time's autocast put together again."""
    function(x)
    attributes = core._get_amp_attrs()
    white, black = core._get_amp_op_list()
    with paddle.amp.auto_cast(
        attributes._amp_level != AMP_LEVEL.O0,
        custom_white_list=white,
        custom_black_list=black,
        level="O2" if attributes._amp_level == AMP_LEVEL.O2 else "O1",
        dtype="float16" if attributes._amp_dtype == "float16" else "bfloat16",
    ):
        return function(x)


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
    """Refuse a mix that no kernel takes; give rows of the result's dtype, for which `x` is kept."""
    dtype = built.CUDA_DTYPES[code]
    assert built.fits_cuda({dtype, x.dtype, *(one.dtype for one in scales)}, is_mixed=True), (dtype, x, scales)
    card.kept.append(x)
    return _reaching(_out_of_sight(x).astype(dtype), x, *scales)


def _activation(x: Any, kind: int) -> list[Any]:
    card.kept.append(x)
    return [paddle.scale(x, 2.0)]


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
    "activation": _activation,
    "linear_cross_entropy": _head_loss,
    "cached_attention": _cached_attention,
}


class _Saving:
    """What a formula's forward pass gets as its context."""

    def save_for_backward(self, *tensors: Any) -> None:
        card.kept.extend(tensors)


def _in_one_op(formula: Any) -> Callable[..., Any]:
    """Run a formula's forward pass out of autograd's sight, and let gradients reach its inputs."""

    def run(*arguments: Any) -> Any:
        hidden = [_out_of_sight(one) if isinstance(one, paddle.pir.Value) else one for one in arguments]
        y = formula.forward(_Saving(), *hidden)
        # What was saved are the inputs themselves.
        card.kept = [next((a for a, b in zip(arguments, hidden, strict=True) if b is one), one) for one in card.kept]
        return _without_autocast(_reaching)(y, *(one for one in arguments if isinstance(one, paddle.pir.Value)))

    return run


def _reaching(y: Any, *inputs: Any) -> Any:
    """Let gradients flow from a value to inputs, for which nothing is kept."""
    return sum(((one.sum() * 0).astype(y.dtype) for one in inputs if not one.stop_gradient), y)


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
paddle.nn.Layer.register_buffer = lambda self, name, tensor, persistable=True: object.__setattr__(self, name, tensor)
paddle.to_tensor, paddle.matmul, paddle.scatter, paddle.where = _to_tensor, _matmul, _scatter, _where
F.linear, F.swiglu, F.layer_norm = _linear, _swiglu, _layer_norm
F.flash_attention.flash_attention, F.flash_attention.flash_attn_unpadded = _flash_attention, _flash_attn_unpadded
recompute.run_twice = _run_twice
built.takes, built._is_there, built.nothing = _takes, lambda *_: card.has_built_ops, lambda dtype="float32": None
built.run = lambda name, *arguments: _without_autocast(BUILT[name])(*arguments)
# A program cannot write into what it was given.
cached_attention._write = lambda *_: None
# A program's parameters need an op that fills them.
NoValues.__call__ = lambda self, *arguments: paddle.nn.initializer.Constant()(*arguments)
for formula in (lean.norm.RMSNorm, lean.rotary.Rotation, lean.activation.QuickGELU):
    formula.apply = staticmethod(_in_one_op(formula))
# Paddle has none of its kind in static programs.
vision_tokens.Meeting.apply = staticmethod(lambda *both: tuple(map(paddle.assign, both)))
