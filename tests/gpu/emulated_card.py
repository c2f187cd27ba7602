"""Lets Paddle's CPU build compute in half precision as a card would, on paddlemix's branches for GPUs.

A CPU build has hardly a kernel in half precision: each op of such tensors is computed in float32 here and rounded to
what a card would give, and so are its gradients, since the casts are on the tape. Automatic mixed precision is Paddle's
own, lists and levels, made to follow here what it leaves alone on CPUs. Tensors look as if they were on a GPU to
paddlemix alone. Import it in a process of its own: Paddle is not put back.
"""

from __future__ import annotations

import ctypes
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import paddlemix  # isort: skip - before Paddle, which it prepares for
import paddle
import paddle.nn.functional as F
from paddle import _C_ops, _legacy_C_ops
from paddle.amp.auto_cast import AMP_LEVEL
from paddle.base import core

from paddlemix.ops.tensors import built

del paddlemix

HALVES = (paddle.bfloat16, paddle.float16)
FLOATS = (*HALVES, paddle.float32)
LARGEST_FLASH_HEAD = 256
# What autocast's lists call ops that are called otherwise today.
LISTED = {
    "cross_entropy_with_softmax": "softmax_with_cross_entropy",
    "embedding": "lookup_table_v2",
    "linear": "linear_v2",
    "matmul": "matmul_v2",
    "mean": "reduce_mean",
    "prod": "reduce_prod",
    "sum": "reduce_sum",
}
COMPARING = {"equal", "not_equal", "less_than", "less_equal", "greater_than", "greater_equal"}
# Ops that take floats of two kinds without autocast too: they compute in the wider one, or hold statistics in it.
MIXING = COMPARING | {"add", "subtract", "multiply", "divide", "where", "layer_norm"}
NATIVE = {"_run_custom_op", "_run_python_op", "cast"}  # they have kernels
WRITING = ("add_", "subtract_", "multiply_", "divide_", "scale_", "clip_")
METHODS = {
    "clone": "assign",
    "_getitem_dygraph": "slice",
    **dict.fromkeys(("__add__", "__radd__"), "add"),
    **dict.fromkeys(("__sub__", "__rsub__"), "subtract"),
    **dict.fromkeys(("__mul__", "__rmul__"), "multiply"),
    **dict.fromkeys(("__div__", "__truediv__", "__rdiv__", "__rtruediv__"), "divide"),
    **dict.fromkeys(("__matmul__", "__rmatmul__"), "matmul"),
    **dict.fromkeys(("__pow__", "__rpow__"), "pow"),
    "__eq__": "equal",
    "__ne__": "not_equal",
    "__lt__": "less_than",
    "__le__": "less_equal",
    "__gt__": "greater_than",
    "__ge__": "greater_equal",
}


@dataclass
class Card:
    """A GPU that is none, and what was asked of it.

    Attributes:
        is_there: whether tensors are on it now.
        ops: the library of the ops for CUDA, compiled for the host; None where none are built.
        asked: by op that is built for CUDA, the dtypes that it would get, and whether it takes them.
        flash: by kind of batch what flash attention was asked: size of a head, causal or not, dtype.
    """

    is_there: bool = False
    ops: Path | None = None
    asked: Counter[tuple[str, str, bool]] = field(default_factory=Counter)
    flash: Counter[tuple[str, int, bool, str]] = field(default_factory=Counter)


class Place:
    """Where a GPU's tensors are."""

    def is_cpu_place(self) -> bool:
        return False

    def is_gpu_place(self) -> bool:
        return True

    def is_xpu_place(self) -> bool:
        return False

    def is_custom_place(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "Place(gpu:0)"


class Tracer:
    """Paddle's tracer, to which its autocast and its scaler look for a GPU."""

    def __init__(self, tracer: Any) -> None:
        object.__setattr__(self, "_tracer", tracer)

    @property
    def _expected_place(self) -> Any:
        return _place if card.is_there else self._tracer._expected_place

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._tracer, name, value)


card = Card()
_place = Place()


@contextmanager
def inserted() -> Iterator[Card]:
    """Let what is in the block run on a card, and count anew what is asked of it."""
    card.asked.clear()
    card.flash.clear()
    card.is_there = True
    try:
        yield card
    finally:
        card.is_there = False


def short(dtype: Any) -> str:
    """Name a dtype."""
    return str(dtype).rpartition(".")[2].lower()


def _asked_by_us() -> bool:
    return card.is_there and sys._getframe(2).f_globals.get("__name__", "").startswith("paddlemix.")


def _floats(values: Any) -> list[paddle.Tensor]:
    found: list[paddle.Tensor] = []
    for value in values:
        if isinstance(value, (list, tuple)):
            found += _floats(value)
        elif isinstance(value, paddle.Tensor) and value.dtype in FLOATS:
            found.append(value)
    return found


def _cast(value: Any, change: Callable[[paddle.Tensor], paddle.Tensor]) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_cast(one, change) for one in value)
    return change(value) if isinstance(value, paddle.Tensor) and value.dtype in FLOATS else value


def computed_in(op: str, floats: list[paddle.Tensor]) -> Any:
    """Tell in which dtype a card computes an op, as Paddle's autocast says; without it, in that of the inputs.

    Args:
        op: as autocast's lists call it.
        floats: its inputs.

    Returns:
        The dtype.

    Raises:
        TypeError: there are two kinds, and no card would take them.
    """
    autocast = core._get_amp_attrs()
    dtypes = {one.dtype for one in floats}
    widest = paddle.float32 if paddle.float32 in dtypes else floats[0].dtype
    if autocast._amp_level == AMP_LEVEL.O0:
        if len(dtypes) > 1 and op not in MIXING:
            raise TypeError(f"{op} got {sorted(map(short, dtypes))}, which no card takes without autocast")
        return floats[0].dtype if op == "layer_norm" else widest
    white, black = core._get_amp_op_list()
    if op in white:
        return getattr(paddle, autocast._amp_dtype)
    if op in black:
        return paddle.float32
    return floats[0].dtype if op == "layer_norm" else widest


def detour(op: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Compute an op of half-precision tensors in float32, and round what it gives as a card would."""
    op = LISTED.get(op, op)

    def run(*arguments: Any, **options: Any) -> Any:
        floats = _floats((*arguments, *options.values())) if card.is_there else []
        if not floats:
            return function(*arguments, **options)
        dtype = computed_in(op, floats)
        if dtype == paddle.float32 and all(one.dtype == dtype for one in floats):
            return function(*arguments, **options)

        def enter(tensor: paddle.Tensor) -> paddle.Tensor:
            is_statistic = op == "layer_norm" and tensor is not floats[0]
            rounded = tensor if tensor.dtype == dtype or is_statistic else _C_ops.cast(tensor, dtype)
            return rounded if rounded.dtype == paddle.float32 else _C_ops.cast(rounded, paddle.float32)

        given = function(*(_cast(one, enter) for one in arguments), **{k: _cast(v, enter) for k, v in options.items()})
        return _cast(given, lambda y: y if dtype == paddle.float32 else _C_ops.cast(y, dtype))

    return run


def in_place(function: Callable[..., Any], outside: Callable[..., Any]) -> Callable[..., Any]:
    """Do to a half-precision tensor what an op does in place: no kernel writes into one."""

    def run(x: Any, *arguments: Any, **options: Any) -> Any:
        if not card.is_there or all(one.dtype == paddle.float32 for one in _floats((x, *arguments))):
            return function(x, *arguments, **options)
        with paddle.no_grad():
            x.copy_(_C_ops.cast(outside(x, *arguments, **options), x.dtype), True)
        return x

    return run


def _adamw(param: Any, gradient: Any, rate: Any, *states: Any) -> Any:
    """Update a half-precision parameter's float32 copy, and round it."""
    *moments, master, found_inf = states[:7]
    if not card.is_there or param.dtype == paddle.float32:
        return _paddle_adamw(param, gradient, rate, *states)
    settings = list(states[7:])
    settings[-3] = False  # a float32 copy is all that this call knows
    master = _C_ops.cast(param, paddle.float32) if master is None else master
    given = _paddle_adamw(master, _C_ops.cast(gradient, paddle.float32), rate, *moments, None, found_inf, *settings)
    param.copy_(_C_ops.cast(master, param.dtype), True)
    return given


def _check_finite_and_unscale(gradients: Any, scale: Any, outputs: Any, found_inf: Any) -> Any:
    if all(one.dtype == paddle.float32 for one in gradients):
        return _paddle_unscale(gradients, scale, outputs, found_inf)
    wide = [_C_ops.cast(one, paddle.float32) for one in gradients]
    given = _paddle_unscale(wide, scale, wide, found_inf)
    for output, one in zip(outputs, wide, strict=True):
        output.copy_(_C_ops.cast(one, output.dtype), True)
    return given


def _attend(query: Any, key: Any, value: Any, scale: float, *, causal: bool) -> Any:
    """Attend in float32, float[L, H, D] to float[S, G, D]; the last query is the last key's."""
    share = query.shape[1] // key.shape[1]
    query, key, value = (_C_ops.cast(one, paddle.float32).transpose([1, 0, 2]) for one in (query, key, value))
    key, value = (one.repeat_interleave(share, axis=0) for one in (key, value))
    scores = _C_ops.matmul(query, key, False, True) * scale
    if causal:
        length, span = scores.shape[1:]
        scores = scores + paddle.full([length, span], -1e30).triu(span - length + 1)
    return _C_ops.matmul(F.softmax(scores, axis=-1), value, False, False).transpose([1, 0, 2])


def _check_heads(query: Any, key: Any, value: Any, axes: int) -> None:
    """Refuse what the kernels would refuse."""
    assert query.dtype == key.dtype == value.dtype, (query.dtype, key.dtype, value.dtype)
    assert query.dtype in HALVES, query.dtype
    assert query.ndim == key.ndim == axes, (query.shape, key.shape)
    assert key.shape == value.shape, (key.shape, value.shape)
    assert query.shape[-2] % key.shape[-2] == 0, (query.shape, key.shape)
    assert query.shape[-1] == key.shape[-1] <= LARGEST_FLASH_HEAD, (query.shape, key.shape)
    assert query.shape[-1] % 8 == 0, query.shape


def _check_ends(ends: Any, longest: Any, total: int) -> list[int]:
    assert ends.dtype == paddle.int32, ends.dtype
    assert type(longest) is int, longest
    places = ends.tolist()
    assert places[0] == 0 and places[-1] == total, (places, total)
    assert longest >= max(end - start for start, end in pairwise(places)), (longest, places)
    return places


def _flash_unpadded(
    query: Any,
    key: Any,
    value: Any,
    cu_q: Any,
    cu_k: Any,
    longest_q: int,
    longest_k: int,
    scale: float,
    dropout: float = 0.0,
    causal: bool = False,
    **unused: Any,
) -> Any:
    assert not dropout and not unused.get("return_softmax")
    _check_heads(query, key, value, axes=3)
    assert type(scale) is float, scale
    starts = zip(
        pairwise(_check_ends(cu_q, longest_q, query.shape[0])),
        pairwise(_check_ends(cu_k, longest_k, key.shape[0])),
        strict=True,
    )
    card.flash["segments", query.shape[-1], causal, short(query.dtype)] += 1
    dtype = query.dtype
    with paddle.amp.auto_cast(False):
        mixed = [_attend(query[a:b], key[c:d], value[c:d], scale, causal=causal) for (a, b), (c, d) in starts]
        return _C_ops.cast(_C_ops.concat(mixed, 0), dtype), None


def _flash(query: Any, key: Any, value: Any, dropout: float = 0.0, causal: bool = False, **unused: Any) -> Any:
    assert not dropout and not unused.get("return_softmax")
    _check_heads(query, key, value, axes=4)
    card.flash["rows", query.shape[-1], causal, short(query.dtype)] += 1
    dtype, scale = query.dtype, query.shape[-1] ** -0.5
    with paddle.amp.auto_cast(False):
        rows = zip(query, key, value, strict=True)
        mixed = [_attend(*row, scale, causal=causal) for row in rows]
        return _C_ops.cast(_C_ops.stack(mixed, 0), dtype), None


def _takes(tensor: Any, *others: Any, **options: Any) -> bool:
    answer = _really_takes(tensor, *others, **options)
    if card.is_there and options.get("on_cuda"):
        dtypes = " ".join(short(one.dtype) for one in (tensor, *others) if one is not None)
        card.asked[sys._getframe(1).f_code.co_name, dtypes, answer] += 1
    return answer


def _cuda_library() -> built.Library:
    """Load the ops once they are asked for."""
    if card.ops is None:
        return built.Library(reason="none were made")
    if card.ops not in _loaded:
        handle = ctypes.CDLL(str(card.ops))
        paddle.utils.cpp_extension.extension_utils.load_op_meta_info_and_register_op(str(card.ops))
        _loaded[card.ops] = built.Library(handle=handle)
    return _loaded[card.ops]


def _replace_everywhere(new_by_old: dict[Any, Any]) -> None:
    """Put functions in the places of others in all of Paddle's modules, which hold some under several names."""
    for name, module in list(sys.modules.items()):
        if name == "paddle" or name.startswith("paddle."):
            for key, value in list(vars(module).items()):
                if callable(value) and not isinstance(value, type) and id(value) in new_by_old:
                    setattr(module, key, new_by_old[id(value)])


_loaded: dict[Path, built.Library] = {}
_paddle_adamw, _paddle_unscale = _C_ops.adamw_, _legacy_C_ops.check_finite_and_unscale
_paddle_place, _really_takes = paddle.Tensor.place, built.takes
_ops = {name: function for name, function in vars(_C_ops).items() if callable(function) and name not in NATIVE}
_detours = {name: detour(name, function) for name, function in _ops.items() if not name.endswith("_")}
_detours |= {name: in_place(_ops[name], _detours[name.removesuffix("_")]) for name in WRITING}
_detours["adamw_"] = _adamw
_replace_everywhere({id(_ops[name]): new for name, new in _detours.items()})
_legacy_C_ops.check_finite_and_unscale = _check_finite_and_unscale
for _name, _op in METHODS.items():
    setattr(paddle.Tensor, _name, detour(_op, getattr(paddle.Tensor, _name)))
paddle.Tensor.place = property(lambda self: _place if _asked_by_us() else _paddle_place.__get__(self))
# `paddle.amp.auto_cast` is a function too.
_autocast, _scaler = map(import_module, ("paddle.amp.auto_cast", "paddle.amp.grad_scaler"))
for _module in (_autocast, _scaler):
    _module._dygraph_tracer = lambda tracer=_module._dygraph_tracer: Tracer(tracer())
_autocast._is_gpu_float16_supported = _autocast._is_gpu_bfloat16_supported = lambda: True
F.flash_attention.flash_attn_unpadded, F.flash_attention.flash_attention = _flash_unpadded, _flash
built.takes, built.cuda_library = _takes, _cuda_library
