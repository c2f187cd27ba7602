"""Reads from a static program what each of its ops costs on a GPU, and what stays for the backward pass.

A program's own ops are kernels that read and write what they are given. Ops that stand for one that only a GPU has
(`static_card.as_one`) are told by `RULES`, which say what the built op or Paddle's kernel does. Views cost nothing; a
kernel that is given a view whose numbers do not lie in their order has it copied first, as Paddle's dispatch does.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import static_card  # isort: skip - first: it prepares Paddle
import paddle
from static_card import Stretch

if TYPE_CHECKING:
    from static_program import Step

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int64": 8, "int32": 4, "bool": 1, "uint8": 1, "float64": 8}
# What exists in a program alone: its inputs, numbers of attributes, lists of values.
SILENT = {"data", "builtin.parameter", "full_int_array", "builtin.combine", "builtin.split"}
VIEWS = {"reshape", "flatten", "squeeze", "unsqueeze", "reshape_grad", "flatten_grad", "squeeze_grad", "unsqueeze_grad"}
PARTS = {"slice", "unbind", "split", "split_with_num"}
TURNED = {"transpose", "transpose_grad"}
# Views of whatever they are given.
LOOSE = {"squeeze", "unsqueeze", "squeeze_grad", "unsqueeze_grad"}
# Kernels of ops that have more than one.
KERNELS = {"embedding_grad": 2, "index_select_grad": 2, "slice_grad": 2, "gather_grad": 2, "index_put": 2}
# Float32 logits that the head's loss holds at once, and the least rows of them: external_ops/cuda.
LOGIT_BYTES, LEAST_ROWS = 2**30, 16
# Rows that are multiplied straight from codes; of a weight in floating point the bytes, and what lines come in.
FEW_ROWS, TILE_BYTES, TILE_STEP = 16, 2**27, 128


class Work(NamedTuple):
    """What one op does on a GPU.

    Attributes:
        name: of the op.
        part: tower, aligner, decoder or loss.
        phase: forward, repeated or backward.
        kernels: that it launches.
        flops: of its products.
        bytes: read and written.
        is_wide: whether its products are of float32.
    """

    name: str
    part: str
    phase: str
    kernels: int
    flops: float
    bytes: float
    is_wide: bool = False


class Rule(NamedTuple):
    """What an op does that stands in no program.

    Attributes:
        inputs: which of its arguments its gradient reads.
        outputs: which of its results.
        forward: kernels.
        backward: kernels of its gradient.
        in_place: its results lie where its arguments lay.
    """

    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    forward: int = 1
    backward: int = 1
    in_place: bool = False


RULES = {
    # A gradient's kernels are its products; the bias's is summed with one of them.
    "linear": Rule((0, 1), backward=0),
    # Its own preparation, the gradient itself, and the rounding of the queries'.
    "flash_attention": Rule((0, 1, 2), (0,), backward=3),
    "paddle_layer_norm": Rule((0, 2, 3), backward=2),
    "scatter": Rule((1,), forward=2, backward=3),
    "where": Rule((0,)),
    "meeting": Rule(forward=2, backward=0),
    # Gradients of norms add up the weight's in a second kernel: external_ops/cuda/norm.cuh.
    "rms_norm": Rule((0, 1), (1,), backward=2),
    "add_rms_norm": Rule((2,), (0, 2), backward=2),
    "layer_norm": Rule((0, 1, 2), (1, 2), backward=3),
    "rotary": Rule((1, 2)),
    "rotary_pair": Rule((2, 3), in_place=True),
    "rotary_split": Rule((1, 2)),
    "swiglu": Rule((0, 1)),
    "activation": Rule((0,)),
    # Its kernels are counted by tiles of the weight; of what it is given its gradient reads the codes alone.
    "quantized_linear": Rule((1, 2, 3, 4)),
    # Of tensors without gradients.
    "cached_attention": Rule(),
    # Formulas that are one op to autograd: what they are given out of its sight, and what they keep.
    "hiding": Rule(forward=0, in_place=True),
    "formula": Rule((0, 1, 2), forward=0),
    # Its gradients are made with it, and wait to be multiplied with the loss's.
    "linear_cross_entropy": Rule((0, 1), backward=2),
}
# Their kin for mixed dtypes keep the same.
RULES |= {f"mixed_{name}": RULES[name] for name in ("rms_norm", "add_rms_norm", "layer_norm")}


def numbers(value: Any) -> int:
    """Count a value's numbers."""
    return math.prod(value.shape)


def size(value: Any) -> int:
    """Count a value's bytes."""
    return numbers(value) * BYTES[static_card.short(value.dtype)]


def is_tensor(value: Any) -> bool:
    """Tell a value that is one tensor."""
    return isinstance(value, paddle.pir.Value) and value.initialized() and value.is_dense_tensor_type()


def tensors(values: Any) -> list[Any]:
    """Leave out what is no tensor."""
    return [value for value in values if is_tensor(value)]


def kind_of(op: Any) -> str:
    """Name an op; Paddle's own without their prefix."""
    return op.name().removeprefix("pd_op.")


class Ledger:
    """The costs of a program.

    Args:
        step: the program.
        after: the number of the last op that is not counted.

    Attributes:
        works: what its ops do.
        kept: by part of the model, the bytes that the forward pass keeps for the backward pass beside parameters;
            "tower weights" and the like are parameters in another dtype, "inputs" what the step was given, "gradients"
            those that the head's loss makes ahead.
    """

    works: list[Work]
    kept: Counter[str]

    def __init__(self, step: Step, after: int = -1) -> None:
        self.step, self.works = step, []
        self._ops = sorted(step.program.global_block().ops, key=lambda op: op.id())
        self._stretches = sorted(step.card.stretches, key=lambda one: one.after)
        self._layout = _Layout(self._ops, self._stretches)
        # Of each op's number: the stretch that it is a part of, and the op whose gradient it is a part of.
        self._owner = {number: one for one in self._stretches for number in range(one.after + 1, one.until + 1)}
        self._origin = {
            number: origin for origin, before, last in step.derived for number in range(before + 1, last + 1)
        }
        self._asked = {id(self._owner[origin]) for origin, *_ in step.derived if origin in self._owner}
        for op in self._ops:
            if op.id() > after:
                self._count(op)
        self.kept = self._count_kept()

    def total(self, *phases: str) -> dict[str, float]:
        """Add up kernels, FLOPs and bytes of some phases; of all where none are named."""
        chosen = [work for work in self.works if not phases or work.phase in phases]
        return {name: sum(getattr(work, name) for work in chosen) for name in ("kernels", "flops", "bytes")}

    @cached_property
    def _parts(self) -> dict[int, str]:
        """The part of the model that each op of the forward pass belongs to."""
        parts: dict[int, str] = {}
        for part, end in self.step.marks.items():
            waiting = [end]
            while waiting:
                op = waiting.pop().get_defining_op()
                if op is not None and op.id() not in parts:
                    parts[op.id()] = part
                    waiting += [value for value in op.operands_source() if value.initialized()]
        # Ops of which nothing came belong where what follows does.
        last = "loss"
        for op in reversed(self._ops):
            if op.id() <= self.step.forward_end:
                last = parts.setdefault(op.id(), last)
        return parts

    def _is_repeated(self, number: int) -> bool:
        return any(one.after < number <= one.until for one in self.step.card.repeated)

    def _count(self, op: Any) -> None:
        number = op.id()
        if number <= self.step.forward_end:
            part, phase = self._parts[number], "repeated" if self._is_repeated(number) else "forward"
            stretch = self._owner.get(number)
            if stretch is None:
                self._count_plain(op, part, phase)
            elif number == stretch.until:
                self._count_stretch(stretch, part, phase)
            return
        origin = self._origin.get(number)
        if origin not in self._owner:
            self._count_plain(op, self.works[-1].part if origin is None else self._parts[origin], "backward")

    def _count_plain(self, op: Any, part: str, phase: str) -> None:
        kind, results = kind_of(op), tensors(op.results())
        if kind in SILENT | PARTS | TURNED or (kind == "full" and numbers(results[0]) == 1):
            return
        given = [value for value in tensors(op.operands_source()) if not _is_attribute(value)]
        if kind in VIEWS:
            if self._layout.copies(op):
                self.works.append(Work("copy", part, phase, 1, 0, 2 * size(results[0])))
            return
        if kind == "add_n":  # sums of gradients, one after the other
            given = tensors(op.operands_source()[0].get_defining_op().operands_source())
            moved = 3 * (len(given) - 1) * size(results[0])
            self.works.append(Work("add", part, phase, len(given) - 1, 0, moved))
            return
        self._copy(given, part, phase)
        moved = sum(map(size, given + results))
        if kind in ("matmul", "matmul_grad"):
            one = _product_flops(op, given)
            count = len(results) if kind == "matmul_grad" else 1
            self.works.append(Work(kind, part, phase, count, one * count, moved, _is_wide(given[0])))
        else:
            self.works.append(Work(kind, part, phase, KERNELS.get(kind, 1), 0, moved))

    def _copy(self, given: list[Any], part: str, phase: str) -> None:
        for value in given:
            if self._layout.is_scattered(value):
                self.works.append(Work("copy", part, phase, 1, 0, 2 * size(value)))

    def _count_stretch(self, one: Stretch, part: str, phase: str) -> None:
        casts, rule = self._layout.casts(one), RULES[one.name]
        if not rule.forward:
            if id(one) in self._asked:
                for op in self._layout.ops_of(one):
                    if op.id() <= one.formula_until:
                        self._count_plain(op, part, "backward")
            return
        for after in casts.values():
            self.works.append(Work("cast", part, phase, 1, 0, size(_source(after)) + size(after)))
        given = [casts.get(value.id, value) for value in tensors(one.inputs)]
        self._copy(given, part, phase)
        results = tensors(one.outputs)
        flops, is_wide = _flops(one), bool(given) and _is_wide(given[0])
        moved = sum(map(size, given + results))
        is_asked = id(one) in self._asked
        if one.name == "linear_cross_entropy":
            self.works += _loss_works(one, part, phase)
        elif one.name == "quantized_linear":
            self.works.append(_quantized_work(one, part, phase))
        else:
            self.works.append(Work(one.name, part, phase, rule.forward, flops, moved, is_wide))
        if not is_asked:
            return
        if one.name == "quantized_linear":
            self.works.append(_quantized_work(one, part, "backward"))
            return
        wanted = [value for value in tensors(one.inputs) if not value.stop_gradient and _is_float(value)]
        kept = [value for _, value in self._held(one)]
        moved = sum(map(size, kept + wanted + [value for value in results if _is_float(value)]))
        kernels, factor = rule.backward, 1.0
        if one.name == "linear":
            kernels = factor = sum(len(value.shape) > 1 for value in wanted)
        elif one.name == "flash_attention":
            query, key = one.inputs[:2]
            factor = 2.5  # five products in place of two
            moved += 2 * 4 * numbers(query)  # the queries' gradient is summed in float32
            if query.shape[-2] != key.shape[-2]:  # keys' and values' are made for each query's head, and summed
                kernels, moved = kernels + 2, moved + 4 * size(query)
        elif one.name == "linear_cross_entropy":
            flops, moved = 0, 0  # the factor is 1, and nothing is read
        self.works.append(Work(f"{one.name}_grad", part, "backward", int(kernels), flops * factor, moved, is_wide))
        for after in casts.values():
            if not _source(after).stop_gradient:
                self.works.append(Work("cast", part, "backward", 1, 0, size(_source(after)) + size(after)))

    def _held(self, one: Stretch) -> Iterator[tuple[str, Any]]:
        """Give what an op keeps for its gradient, beside where it comes from, "input", "cast" or "output"."""
        rule, casts = RULES[one.name], self._layout.casts(one)
        for place in rule.inputs:
            value = one.inputs[place] if place < len(one.inputs) else None
            if is_tensor(value):
                yield ("cast", casts[value.id]) if value.id in casts else ("input", value)
        yield from (("output", one.outputs[place]) for place in rule.outputs)

    def _count_kept(self) -> Counter[str]:
        held: dict[str, tuple[str, int]] = {}
        extra: Counter[str] = Counter()
        # What a repeated block gives; that it did so the first time does not show in the program.
        handed_on = {self._layout.root(one.outputs[0]).id for one in self.step.card.repeated}

        def hold(value: Any) -> None:
            root = self._layout.root(value)
            op = root.get_defining_op()
            if op is None or kind_of(op) == "builtin.parameter" or _is_attribute(root):
                return
            if self._is_repeated(op.id()) and root.id not in handed_on:
                return
            where = "inputs" if kind_of(op) == "data" else self._parts[op.id()]
            where += " weights" if _is_weight(op) else ""
            held.setdefault(root.id, (where, size(root)))

        for one in self._stretches:
            number = one.until
            if number > self.step.forward_end or id(one) not in self._asked:
                continue
            for _, value in self._held(one):
                hold(value)
            if self._is_repeated(number):
                continue
            if one.name == "flash_attention":  # the logarithm of each row's sum
                extra[self._parts[number]] += 4 * numbers(one.outputs[0]) // one.outputs[0].shape[-1]
            elif one.name == "linear_cross_entropy":
                extra["gradients"] += sum(size(value) for value in one.inputs[:2] if not value.stop_gradient)
        for op in self._ops:
            self._hold_for_gradient(op, hold)
            self._hold_for_repeating(op, hold)
        for where, held_bytes in held.values():
            extra[where] += held_bytes
        return extra

    def _hold_for_gradient(self, op: Any, hold: Any) -> None:
        origin = self._origin.get(op.id())
        if origin is None or origin in self._owner:
            return
        for value in tensors(op.operands_source()):
            made = value.get_defining_op()
            is_before = made is not None and (kind_of(made) == "data" or made.id() <= self.step.forward_end)
            if is_before and not (op.name().endswith("_grad") and op.is_no_need_buffer(value)):
                hold(value)

    def _hold_for_repeating(self, op: Any, hold: Any) -> None:
        region = next((one for one in self.step.card.repeated if one.after < op.id() <= one.until), None)
        if region is None or kind_of(op) in VIEWS:
            return
        owner = self._owner.get(op.id())
        given = op.operands_source() if owner is None else owner.inputs
        for value in tensors(given):
            made = self._layout.root(value).get_defining_op()
            if made is not None and not region.after < made.id() <= region.until:
                hold(value)


class _Layout:
    """Where values lie: which are views of which, and whether their numbers lie in their order."""

    def __init__(self, ops: list[Any], stretches: list[Stretch]) -> None:
        self._roots: dict[str, Any] = {}
        self._scattered: set[str] = set()
        self._copying: set[int] = set()
        self._stretches = {number: one for one in stretches for number in range(one.after + 1, one.until + 1)}
        self._in_stretch: dict[int, list[Any]] = {}
        for op in ops:
            one = self._stretches.get(op.id())
            if one is None:
                self._note(op)
                continue
            self._in_stretch.setdefault(one.after, []).append(op)
            if op.id() == one.until and RULES[one.name].in_place:
                for given, result in zip(one.inputs, one.outputs, strict=False):
                    if not self.is_scattered(given):  # or the op gets, and changes, a copy
                        self._roots[result.id] = self.root(given)

    def root(self, value: Any) -> Any:
        """Return the value of which one is a view, or itself."""
        return self._roots.get(value.id, value)

    def is_scattered(self, value: Any) -> bool:
        """Tell a view whose numbers do not lie in their order."""
        return value.id in self._scattered

    def copies(self, op: Any) -> bool:
        """Tell a reshape that has to copy."""
        return op.id() in self._copying

    def ops_of(self, one: Stretch) -> list[Any]:
        """Return the ops of a stretch, in their order."""
        return self._in_stretch.get(one.after, [])

    def casts(self, one: Stretch) -> dict[str, Any]:
        """Return what autocast makes of an op's inputs, by their ids; built ops run without it."""
        found: dict[str, Any] = {}
        if one.name in static_card.BUILT:
            return found
        given = {value.id for value in tensors(one.inputs)}
        for op in self.ops_of(one):
            if kind_of(op) == "cast" and op.operands_source()[0].id in given:
                source, result = op.operands_source()[0], op.results()[0]
                if source.dtype != result.dtype:
                    found.setdefault(source.id, result)
        return found

    def _note(self, op: Any) -> None:
        kind = kind_of(op)
        if kind not in VIEWS | PARTS | TURNED:
            return
        source = op.operands_source()[0]
        results = tensors(op.results())
        if kind in ("unbind", "split", "split_with_num"):
            # Its results are what takes its list apart.
            list_of = op.results()[0]
            results = tensors(list_of.first_use().owner().results()) if list_of.has_one_use() else []
        if kind in VIEWS - LOOSE and self.is_scattered(source):
            self._copying.add(op.id())
            return
        is_scattered = self.is_scattered(source) or not _is_dense(op, kind, source)
        for result in results:
            self._roots[result.id] = self.root(source)
            if is_scattered:
                self._scattered.add(result.id)


def _is_dense(op: Any, kind: str, source: Any) -> bool:
    """Tell whether a part of a dense value, or the value turned, has its numbers in their order."""
    shape = source.shape
    if kind in VIEWS:
        return True
    if kind in TURNED:
        order = [axis for axis in op.attrs()["perm"] if shape[axis] != 1]
        return order == sorted(order)
    attributes = op.attrs()
    axes = attributes["axes"] if kind == "slice" else [attributes["axis"] if "axis" in attributes else _axis_of(op)]
    result = op.results()[0]
    if kind == "slice" and result.initialized() and numbers(result) == numbers(source):
        return True
    return all(extent == 1 for extent in shape[: axes[0] % len(shape)]) and len(axes) == 1


def _axis_of(op: Any) -> int:
    """Read the axis that an op is given as a value."""
    return int(op.operands_source()[-1].get_defining_op().attrs()["value"])


def _source(cast: Any) -> Any:
    """Return what was cast."""
    return cast.get_defining_op().operands_source()[0]


def _is_weight(op: Any) -> bool:
    """Tell a parameter that was cast."""
    made = op.operands_source()[0].get_defining_op() if kind_of(op) == "cast" else None
    return made is not None and kind_of(made) == "builtin.parameter"


def _is_attribute(value: Any) -> bool:
    op = value.get_defining_op()
    return op is not None and (kind_of(op) == "full_int_array" or (kind_of(op) == "full" and numbers(value) == 1))


def _is_float(value: Any) -> bool:
    return value.dtype in (*static_card.HALVES, paddle.float32)


def _is_wide(value: Any) -> bool:
    return value.dtype == paddle.float32


def _product_flops(op: Any, given: list[Any]) -> float:
    """Count the FLOPs of one product: two for each number of a factor and row or column of the other."""
    x, y = given[:2]
    columns = y.shape[-2] if op.attrs()["transpose_y"] else y.shape[-1]
    return 2 * numbers(x) * columns


def _flops(one: Stretch) -> float:
    if one.name == "linear":
        return 2 * numbers(one.inputs[0]) * one.inputs[1].shape[-1]
    if one.name == "flash_attention":
        query, key, *rest = one.inputs[0], one.inputs[1], *map(_lengths, tensors(one.inputs[3:]))
        lengths = rest or [[x.shape[-3]] * math.prod(x.shape[:-3]) for x in (query, key)]
        pairs = sum(queries * keys for queries, keys in zip(*lengths, strict=True))
        is_causal = any(value is True for value in one.inputs)
        return 4 * query.shape[-2] * query.shape[-1] * pairs / (2 if is_causal else 1)
    if one.name == "cached_attention":
        return 4 * numbers(one.inputs[0]) * (one.inputs[-1] + 1)
    return 0


def _lengths(ends: Any) -> list[int]:
    """Return the lengths of sequences that lie end to end, whose ends the host knows."""
    return [after - before for before, after in pairwise(static_card.numbers_of(ends))]


def _quantized_work(one: Stretch, part: str, phase: str) -> Work:
    """Give what a product with a weight of codes does, as external_ops/cuda/quantized.cuh launches it."""
    x, *weight, bias, outputs, inputs, _ = one.inputs
    rows, number, is_backward = numbers(x) // inputs, BYTES[static_card.short(x.dtype)], phase == "backward"
    moved = sum(map(size, tensors(weight))) + rows * (inputs + outputs) * number
    flops, name = 2.0 * rows * inputs * outputs, "quantized_linear" + "_grad" * is_backward
    if rows <= FEW_ROWS and not is_backward:
        return Work(name, part, phase, 1, flops, moved, _is_wide(x))
    # Each tile of the weight is written, and read by its product; a bias is written to all rows first.
    lines, length = (inputs, outputs) if is_backward else (outputs, inputs)
    tiles = math.ceil(lines / weight_lines(lines, length, number))
    moved += 2 * outputs * inputs * number
    has_bias = bias is not None and not is_backward
    moved += 2 * rows * outputs * number * has_bias
    return Work(name, part, phase, 2 * tiles + has_bias, flops, moved, _is_wide(x))


def weight_lines(lines: int, length: int, number: int) -> int:
    """Tell how many of a weight's lines of so many numbers, each of so many bytes, the built op holds at once."""
    most = max(TILE_BYTES // (number * length), TILE_STEP)
    even = math.ceil(lines / math.ceil(lines / most))
    return min(math.ceil(even / TILE_STEP) * TILE_STEP, lines)


def loss_pieces(rows: int, vocabulary: int) -> list[int]:
    """Cut the rows of the head's loss as the built op does."""
    piece = min(rows, max(LEAST_ROWS, LOGIT_BYTES // (4 * vocabulary)))
    return [min(piece, rows - first) for first in range(0, rows, piece)]


def _loss_works(one: Stretch, part: str, phase: str) -> Iterator[Work]:
    """Give the kernels of the head's loss, as external_ops/cuda/linear_cross_entropy.cuh launches them."""
    hidden, weight = one.inputs[:2]
    (rows, width), number = hidden.shape, BYTES[static_card.short(hidden.dtype)]
    vocabulary, is_mixed = numbers(weight) // width, weight.dtype != hidden.dtype
    pieces, is_wide = loss_pieces(rows, vocabulary), _is_wide(hidden)
    wanted = [value for value in (hidden, weight) if not value.stop_gradient]
    if is_mixed:  # a rounded copy is what products read
        yield Work("loss_rounding", part, phase, 1, 0, numbers(weight) * (4 + number))
    for piece in pieces:
        logits, flops = piece * vocabulary, 2.0 * piece * vocabulary * width
        factors = (piece * width + numbers(weight)) * number
        yield Work("loss_product", part, phase, 1, flops, factors + 4 * logits, is_wide)
        yield Work("loss_statistics", part, phase, 1, 0, 4 * logits)
        if wanted:
            yield Work("loss_gradient", part, phase, 1, 0, (4 + number) * logits)
        for value in wanted:
            # The hidden states' gradient, of this piece alone; the weight's, which is summed in float32.
            written = numbers(value) * (4 if len(pieces) > 1 or is_mixed else number)
            written = piece * width * number if value is hidden else written
            read = numbers(weight) if value is hidden else piece * width
            yield Work("loss_product", part, phase, 1, flops, (logits + read) * number + written, is_wide)
    if len(pieces) > 1 and not is_wide and not is_mixed and not weight.stop_gradient:
        yield Work("loss_rounding", part, phase, 1, 0, numbers(weight) * (4 + number))
    yield Work("loss_cost", part, phase, 1, 0, 8.0 * rows)
