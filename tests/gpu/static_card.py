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
from typing import Any

import paddlemix  # isort: skip - before Paddle, which it prepares for
import numpy as np
import paddle
import paddle.nn.functional as F
from paddle.amp.auto_cast import AMP_LEVEL
from paddle.base import core

from paddlemix.models.layers import recompute, vision_tokens
from paddlemix.models.qwen_vl.modeling import QWenLMHeadModel
from paddlemix.ops.tensors import built, cross_entropy
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
    """

    name: str
    inputs: tuple[Any, ...]
    outputs: list[Any]
    after: int
    until: int


@dataclass
class Card:
    """A GPU that computes nothing, and what a forward pass asked of it.

    Attributes:
        has_built_ops: whether `external_ops` was built for it.
        true_places: how many places `nonzero` finds, by the file that asks.
        asked: by op that is built for CUDA, the dtypes that it would get, and whether it takes them.
        products: by the function that asks, the dtype in which a product is computed.
        flash: what flash attention was asked.
        lengths: the tensors that said where its segments end.
        constants: tensors that were made of the host's numbers.
        waits: how often the host waited for numbers of the card.
        stretches: ops that stand for others, in their order.
        repeated: what recomputing computes a second time.
    """

    has_built_ops: bool = True
    true_places: dict[str, int] = field(default_factory=dict)
    asked: Counter[tuple[str, str, bool]] = field(default_factory=Counter)
    products: Counter[tuple[str, str]] = field(default_factory=Counter)
    flash: Counter[tuple[int, bool, str]] = field(default_factory=Counter)
    lengths: list[Any] = field(default_factory=list)
    constants: int = 0
    waits: int = 0
    stretches: list[Stretch] = field(default_factory=list)
    repeated: list[Stretch] = field(default_factory=list)


class Place:
    """Where a GPU's tensors are."""

    def is_cpu_place(self) -> bool:
        return False

    def is_gpu_place(self) -> bool:
        return True


card = Card()
_known: dict[int, tuple[Any, Any]] = {}
_inside = [False]


def insert(new: Card) -> None:
    """Let what follows be asked of another card."""
    global card
    card = new
    _known.clear()


def short(dtype: Any) -> str:
    """Name a dtype."""
    return str(dtype).rpartition(".")[2].lower()


def known(numbers: Any, dtype: str | None = None) -> Any:
    """Make a value of the program whose numbers the host knows."""
    array = np.asarray(numbers)
    dtype = dtype or {"float64": "float32"}.get(str(array.dtype), str(array.dtype))
    value = paddle.static.data(f"known{len(_known)}", list(array.shape), short(dtype))
    _known[id(value)] = value, array.tolist()
    return value


def numbers_of(value: Any) -> Any:
    """Return what the host knows of a value of the program; None of others, of whose numbers only the card knows."""
    while (op := value.get_defining_op()) is not None and op.name() == "pd_op.cast":
        value = op.operands_source()[0]
    return next((numbers for one, numbers in _known.values() if one.is_same(value)), None)


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
    card.constants += 1
    return known(data, dtype)


def _nonzero(value: Any, as_tuple: bool = False) -> Any:
    assert not as_tuple
    card.waits += 1
    file = sys._getframe(1).f_code.co_filename.rpartition("/")[2]
    return paddle.static.data(f"places{id(value)}", [card.true_places[file], 1], "int64")


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
    dtype = _paddle_layer_norm(x, shape, weight, bias, epsilon).dtype
    return _without_autocast(lambda: x.astype(dtype) * weight.astype(dtype) + bias.astype(dtype))()


def _flash_attention(
    q: Any, k: Any, v: Any, cu_q: Any, cu_k: Any, longest_q: int, longest_k: int, scale: float, *, causal: bool
) -> Any:
    """Refuse what the kernel would refuse."""
    assert q.dtype == k.dtype == v.dtype, (q.dtype, k.dtype, v.dtype)
    assert q.dtype in HALVES, q.dtype
    assert len(q.shape) == len(k.shape) == 3, (q.shape, k.shape)
    assert k.shape == v.shape, (k.shape, v.shape)
    assert q.shape[1] % k.shape[1] == 0, (q.shape, k.shape)
    assert q.shape[2] == k.shape[2] <= LARGEST_FLASH_HEAD, (q.shape, k.shape)
    assert q.shape[2] % 8 == 0, q.shape
    assert cu_q is cu_k, (cu_q, cu_k)
    assert cu_q.dtype == paddle.int32, cu_q.dtype
    assert len(cu_q.shape) == 1, cu_q.shape
    assert type(longest_q) is type(longest_k) is int, (longest_q, longest_k)
    assert type(scale) is float, scale
    card.flash[q.shape[2], causal, short(q.dtype)] += 1
    if not any(cu_q.is_same(other) for other in card.lengths):
        card.lengths.append(cu_q)
    return _without_autocast(lambda: q + (k + v).mean(axis=1, keepdim=True))(), None


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


def _read(value: Any) -> Any:
    card.waits += 1
    return _known[id(value)][1]


def _read_targets(*unused: Any) -> None:
    del unused
    card.waits += 2  # for the least and for the greatest


def _takes(tensor: Any, *others: Any, on_cuda: bool = False) -> bool:
    is_there = _really_takes(tensor, *others, on_cuda=on_cuda)
    if on_cuda:
        dtypes = " ".join(short(one.dtype) for one in (tensor, *others) if one is not None)
        fits = all(one is None or one.dtype == tensor.dtype for one in others) and tensor.dtype in built.CUDA_DTYPES
        card.asked[sys._getframe(1).f_code.co_name, dtypes, fits] += 1
    return is_there


def _scaled(x: Any, weight: Any, bias: Any = None) -> Any:
    return x * weight if bias is None else x * weight + bias


def _rows(x: Any) -> Any:
    return paddle.zeros([int(np.prod(x.shape[:-1]))], "float32")


def _add_rms_norm(x: Any, residual: Any, weight: Any, epsilon: float) -> list[Any]:
    total = x + residual
    return [total, total * weight, _rows(x)]


def _head_loss(hidden: Any, weight: Any, targets: Any, weights: Any, *flags: bool) -> list[Any]:
    card.products["linear_cross_entropy", short(hidden.dtype)] += 1
    return [(hidden.mean() + weight.mean()).astype("float32") * weights.sum()]


# Ops with the inputs, the outputs and the dtypes of the built ones.
BUILT: dict[str, Callable[..., list[Any]]] = {
    "rms_norm": lambda x, weight, epsilon: [x * weight, _rows(x)],
    "add_rms_norm": _add_rms_norm,
    "layer_norm": lambda x, weight, bias, epsilon: [_scaled(x, weight, bias), _rows(x), _rows(x)],
    "rotary": lambda x, cos, sin: [paddle.scale(x, 2.0)],
    "rotary_pair": lambda query, key, cos, sin: [paddle.scale(query, 2.0), paddle.scale(key, 2.0)],
    "rotary_split": lambda qkv, cos, sin: [paddle.scale(one, 2.0) for one in qkv.unbind(axis=1)],
    "swiglu": lambda gate, up: [gate * up],
    "activation": lambda x, kind: [paddle.scale(x, 2.0)],
    "linear_cross_entropy": _head_loss,
}


def on_card(*, is_forward: bool) -> None:
    """Put values on the GPU, where a forward pass sees them, or where Paddle's own code for gradients expects them."""
    place = Place() if is_forward else paddle.CPUPlace()
    paddle.pir.Value.place = property(lambda value: place)


_paddle_matmul, _paddle_scatter, _paddle_layer_norm = paddle.matmul, paddle.scatter, F.layer_norm
_really_takes = built.takes
paddle.pir.Value.is_leaf = property(lambda value: False)
paddle.pir.Value.size = property(lambda value: int(np.prod(value.shape)))
paddle.pir.Value.nonzero = _nonzero
paddle.pir.Value.tolist = _read
paddle.nn.Layer.register_buffer = lambda self, name, tensor, persistable=True: object.__setattr__(self, name, tensor)
paddle.to_tensor, paddle.matmul = _to_tensor, _matmul
paddle.scatter, paddle.where = as_one("scatter", _scatter), as_one("where", _where)
F.linear, F.swiglu = as_one("linear", _linear), as_one("swiglu", _swiglu)
F.layer_norm = as_one("paddle_layer_norm", _layer_norm)
F.flash_attention.flash_attn_unpadded = as_one("flash_attention", _flash_attention)
recompute.run_twice = _run_twice
built.takes, built._is_there, built.nothing = _takes, lambda *_: card.has_built_ops, lambda dtype="float32": None
built.run = lambda name, *arguments: as_one(name, _without_autocast(BUILT[name]))(*arguments)
# A program's parameters need an op that fills them.
NoValues.__call__ = lambda self, *arguments: paddle.nn.initializer.Constant()(*arguments)
# Of what the host would have to wait for.
cross_entropy.check_targets = _read_targets
QWenLMHeadModel._image_places = lambda self, ids, pixels: ids > 0
vision_tokens.Meeting.apply = staticmethod(as_one("meeting", lambda *both: tuple(map(paddle.assign, both))))
