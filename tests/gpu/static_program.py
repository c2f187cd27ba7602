"""Makes a family's training step, prefill or token as static programs and prints what each of them is as JSON.

Run it by itself: static_program.py FAMILY CASE..., a case such as O2-pack-lora-built-2: level (`half` is weights in
half precision without autocast), batch, what is trained or else read, whether there are built ops, blocks. Half
precision is bfloat16: of float16 a CPU build refuses to plan products.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import static_card  # isort: skip - first: it prepares Paddle
import numpy as np
import paddle
from paddle import nn
from paddle.autograd.ir_backward import append_backward
from paddle.base import core
from paddlenlp.trainer import Trainer
from paddlenlp.transformers.model_utils import no_init_weights
from static_ledger import Ledger

from paddlemix import handover
from paddlemix.estimate.activations import Activations
from paddlemix.estimate.setup import Batch as Size
from paddlemix.estimate.setup import Cards, Precision, Setup
from paddlemix.estimate.total import estimate
from paddlemix.models.family import Family
from paddlemix.models.layers.linear import Linear
from paddlemix.models.registry import FAMILIES
from paddlemix.models.replace import replace_layer
from paddlemix.peft.adapter_config import AdapterConfig
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.peft.targets import HEAD, linear_layers
from paddlemix.quantization.blocks import Blocks
from paddlemix.quantization.linear import QuantizedLinear

READ = ("loss", "prefill", "token", "qprefill", "qtoken")
QUANTIZED = ("qlora", "qprefill", "qtoken")
# The published model whose widths the programs of tests have.
MODELS = {"qwen2_vl": "Qwen2-VL-2B", "qwen2_5_vl": "Qwen2.5-VL-7B", "qwen": "Qwen-VL"}
VOCABULARIES = (151936, 152064)  # of theirs
# Keys of a config by which the blocks of its tower are counted.
DEPTHS = {"qwen2_vl": ("vision_config", "depth"), "qwen": ("visual", "layers")}
DEPTHS["qwen2_5_vl"] = DEPTHS["qwen2_vl"]


@dataclass(frozen=True)
class Batch:
    """What a forward pass is given.

    Attributes:
        kind: a pack of samples; "text", a pack without images; "padded" rows, of which no mask tells where padding is;
            or "left" or "right", where one says that it hides 300 places of the first row.
        ends: where the samples of a pack end, 0 before them.
        samples: rows, if it is no pack.
        targets: tokens that are asked for, of all rows, at most.
        grids: patches of each image in time, height and width; Qwen-VL takes as many of its own images.
    """

    kind: str
    ends: tuple[int, ...] = (0, 400, 1000)
    samples: int = 2
    targets: int = 200
    grids: tuple[tuple[int, int, int], ...] = ((1, 20, 20), (1, 40, 20))

    @property
    def is_pack(self) -> bool:
        """Whether all samples are in one row."""
        return self.kind in ("pack", "text")

    @property
    def rows(self) -> int:
        """Count the rows."""
        return 1 if self.is_pack else self.samples

    def image_tokens(self, family: str) -> int:
        """Count the tokens that stand for the images."""
        return 256 * len(self.grids) if family == "qwen" else sum(map(math.prod, self.grids)) // 4


def family_of(name: str) -> Family:
    """Find a family by the `model_type` of its files."""
    return next(one for one in FAMILIES if one.model_type == name)


def make_model(family: str, name: str, blocks: int | None = None) -> nn.Layer:
    """Make a published model.

    Args:
        family: its `model_type`.
        name: on the hub, without its owner.
        blocks: of tower and decoder, in place of the published ones.

    Returns:
        The model; its parameters have no numbers.
    """
    of = family_of(family)
    values = dict(next(values for one, values in of.published.items() if one.endswith(f"/{name}")))
    if blocks is not None:
        part, key = DEPTHS[family]
        values |= {"num_hidden_layers": blocks, part: {**values.get(part, {}), key: blocks}}
        if family == "qwen2_5_vl":  # attention of the others is in windows
            values[part]["fullatt_block_indexes"] = [1]
    with no_init_weights():
        return of.model_class(of.config_class(**values))


def make_inputs(family: str, batch: Batch, model: nn.Layer) -> dict[str, Any]:
    """Make what the collator gives, and the layout that comes with it."""
    tokens, axes = batch.ends[-1], [] if family == "qwen" else [3]
    arrays: dict[str, np.ndarray] = {"input_ids": np.zeros([batch.rows, tokens], np.int64)}
    if batch.is_pack:
        arrays["cu_seqlens"] = np.array(batch.ends, np.int32)
    if axes or batch.is_pack:
        arrays["position_ids"] = np.zeros([*axes, batch.rows, tokens], np.int64)
    given: dict[str, Any] = {}
    if batch.kind in ("left", "right"):
        given["attention_mask"] = padding_mask(batch.rows, tokens, batch.kind)
    is_free = np.ones([batch.rows, tokens], bool)
    if batch.kind != "text":
        shape = [len(batch.grids), 3, 448, 448] if family == "qwen" else [4 * batch.image_tokens(family), 1176]
        # Data workers round pixels.
        given["pixel_values"] = paddle.static.data("pixel_values", shape, "bfloat16")
        arrays |= _show_images(family, batch, arrays["input_ids"], is_free, model.config)
    arrays |= _targets(batch, is_free)
    laid = model.lay_out(model.config, {**arrays, **given})
    layout = handover.Layout(laid, {name: static_card.known(array) for name, array in laid.items()})
    return {**{name: static_card.known(array) for name, array in arrays.items()}, **given, "layout": layout}


def _show_images(
    family: str, batch: Batch, input_ids: np.ndarray, is_free: np.ndarray, config: Any
) -> dict[str, np.ndarray]:
    """Let images stand at the beginning of each sample, or in the last row, and give what is said of them.

    Args:
        family: `model_type`.
        batch: which images there are.
        input_ids: int64[rows, tokens]; theirs are written.
        is_free: bool[rows, tokens]; becomes false where they are.
        config: the model's.

    Returns:
        Arrays by name.
    """
    tokens, ids, free = batch.ends[-1], input_ids.reshape(-1), is_free.reshape(-1)
    starts = [(batch.rows - 1) * tokens + i * tokens // len(batch.grids) for i in range(len(batch.grids))]
    if batch.kind == "pack" and len(batch.ends) - 1 == len(batch.grids):
        starts = list(batch.ends[:-1])
    elif batch.kind == "padded" and batch.rows == len(batch.grids):
        starts = [i * tokens for i in range(batch.rows)]
    for start, grid in zip(starts, batch.grids, strict=True):
        if family == "qwen":
            end = start + config.visual.n_queries + 2
            ids[start], ids[end - 1] = config.visual.image_start_id, config.visual.image_start_id + 1
        else:
            end = start + math.prod(grid) // 4
            ids[start:end] = config.image_token_id
        free[start:end] = False
    return {} if family == "qwen" else {"image_grid_thw": np.array(batch.grids)}


def _targets(batch: Batch, is_free: np.ndarray) -> dict[str, np.ndarray]:
    """Let the last tokens, but for those of images, and for the first of each sample, be asked for."""
    labels = np.full(is_free.shape, -100, np.int64)
    is_free = is_free.copy()
    is_free[:, 0] = False
    if batch.is_pack:
        is_free[0, list(batch.ends[:-1])] = False
    places = np.flatnonzero(is_free)
    labels.reshape(-1)[places[max(len(places) - batch.targets, 0) :]] = 7
    return {"labels": labels, "loss_weights": np.ones(labels.shape, np.float32)}


def padding_mask(rows: int, span: int, side: str) -> np.ndarray:
    """Make a mask int64[rows, span] that hides 300 places of the first row."""
    mask = np.ones([rows, span], np.int64)
    mask[0, :300] = 0
    return mask if side == "left" else mask[:, ::-1]


def autocast(level: str) -> Any:
    """Return the trainer's autocast."""
    if level == "half":
        return nullcontext()
    args = SimpleNamespace(fp16_opt_level=level, amp_custom_white_list=None, amp_custom_black_list=None)
    asked = SimpleNamespace(enable_autocast_context_manager=True, amp_dtype="bfloat16", args=args)
    return Trainer.autocast_smart_context_manager(asked)


@dataclass
class Step:
    """A training step as a program.

    Attributes:
        program: forward and backward.
        model: with the parameters of the program.
        loss: its value.
        gradients: by parameter that is trained.
        forward_end: the number of the last op of the forward pass.
        marks: values at which a part of the model ends, in their order.
        derived: of each op that has a gradient its number, and those between which the ops of its gradient lie.
    """

    program: Any
    model: nn.Layer
    loss: Any = None
    gradients: Any = None
    forward_end: int = 0
    marks: dict[str, Any] = field(default_factory=dict)
    derived: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def card(self) -> static_card.Card:
        """The card that was asked while the program was made, which is the one that is in now."""
        return static_card.card


def make_trained(family: str, name: str, level: str, kind: str, blocks: int | None) -> nn.Layer:
    """Make the model that a step trains, with weights in the precision that the level holds."""
    paddle.set_default_dtype("float32" if level == "O1" else "bfloat16")
    model = make_model(family, name, blocks)
    if kind in QUANTIZED:
        hold_as_codes(model)
    if kind in ("lora", "qlora"):
        layers = [one for one in linear_layers(model) if one != HEAD]
        model = MixLoRAModel.adapting(model, AdapterConfig(rank=8, alpha=16), layers)
    paddle.set_default_dtype("float32")
    if kind == "recompute":
        model.set_recompute(vision=True, language=True)
    return model


def hold_as_codes(model: nn.Layer) -> None:
    """Let the decoder's blocks hold their weights as codes of 4 bits, 128 to a scale, as `int4` rounds them."""
    blocks = {id(layer) for layer in model.decoder.blocks.sublayers() if type(layer) is Linear}
    for name in [name for name, layer in model.named_sublayers() if id(layer) in blocks]:
        replace_layer(model, name, _held_as_codes)


def _held_as_codes(layer: nn.Layer) -> nn.Layer:
    inputs, outputs = layer.weight.shape
    count, group = outputs * inputs, 128
    codes, levels = np.zeros(-(-count // 2), np.uint8), np.arange(16, dtype=np.float32)
    factors = [np.zeros(count // group, np.float32) for _ in range(2)]
    return QuantizedLinear(Blocks((outputs, inputs), 4, group, codes, levels, *factors), layer.bias)


def make_step(
    family: str, level: str, batch: Batch, kind: str, *, name: str = "", blocks: int | None = None, built: bool = True
) -> Step:
    """Make the program of one forward and backward pass, or of what is read without gradients.

    Args:
        family: `model_type`.
        level: O1, O2, or half.
        batch: what it is given.
        kind: of training: full, lora, qlora or recompute; or what is read: loss, prefill or token, or one of both
            with a decoder of codes: qprefill, qtoken.
        name: of the published model; "" takes the one of tests.
        blocks: of tower and decoder, in place of the published ones.
        built: whether there are built ops.

    Returns:
        The step; of what is read without loss and gradients.
    """
    static_card.insert(static_card.Card(has_built_ops=built))
    static_card.on_card(is_forward=True)
    program = paddle.static.Program()
    with paddle.utils.unique_name.guard(), paddle.static.program_guard(program, paddle.static.Program()):
        model = make_trained(family, name or MODELS[family], level, kind, blocks)
        model.train()
        step = Step(program, model)
        _mark_parts(step)
        inputs = make_inputs(family, batch, model)
        static_card.card.constants = 0
        if kind in READ:
            with autocast(level), paddle.no_grad():
                read(model.eval(), batch, kind.removeprefix("q"), inputs)
            step.forward_end = static_card.last_op()
            return step
        with autocast(level):
            step.loss = model(**inputs).loss
        static_card.on_card(is_forward=False)
        step.forward_end = static_card.last_op()
        trained = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
        with _noting_derivatives(step):
            step.gradients = append_backward(step.loss, parameter_list=trained)
    return step


class Cache:
    """A layer's cache, which a program cannot write to.

    Args:
        shape: of the decoder.
        rows: of the batch.
        length: tokens that it holds; there is room for one more.
    """

    def __init__(self, shape: Any, rows: int, length: int) -> None:
        self.length, self.prefilled, self.rows = length, length, None
        self._shape = [rows, length + 1, shape.kv_heads, shape.head_dim]

    def extend(self, key: Any, value: Any) -> tuple[Any, Any]:
        """Take the prompt's."""
        assert not self.length, "what continues a prompt copies keys and values that the cache holds"
        return key, value

    def open(self, length: int) -> tuple[Any, Any]:
        """Return the memory."""
        self.length += length
        return tuple(paddle.static.data(f"cache{id(self)}{name}", self._shape, "bfloat16") for name in "kv")


def read(model: nn.Layer, batch: Batch, kind: str, inputs: dict[str, Any]) -> None:
    """Make what evaluation, a prompt, or one more token of each row computes."""
    if kind == "loss":
        model(**inputs)
        return
    del inputs["labels"], inputs["loss_weights"]
    rows, tokens = batch.rows, batch.ends[-1]
    caches = [Cache(model.config.decoder_shape, rows, tokens * (kind == "token")) for _ in model.decoder.blocks]
    if kind == "token":
        axes = inputs["position_ids"].shape[:-2] if "position_ids" in inputs else None
        inputs = {
            "input_ids": paddle.static.data("one_token", [rows, 1], "int64"),
            "position_ids": None if axes is None else paddle.static.data("places", [*axes, rows, 1], "int64"),
            "attention_mask": padding_mask(rows, tokens + 1, "left") if "attention_mask" in inputs else None,
        }
    model(**inputs, past_key_values=caches, last_logits_only=True)


def _mark_parts(step: Step) -> None:
    """Note where the tower's blocks, the layers behind them, and the decoder end."""
    inner = getattr(step.model, "model", step.model) if isinstance(step.model, MixLoRAModel) else step.model
    blocks = [one for one in inner.tower.sublayers() if type(one).__name__ == "VisionBlock"]
    for part, layer in (("tower", blocks[-1]), ("aligner", inner.tower), ("decoder", inner.decoder)):

        def note(layer: nn.Layer, given: Any, result: Any, part: str = part) -> None:
            del layer, given
            step.marks[part] = result

        layer.register_forward_post_hook(note)


@contextmanager
def _noting_derivatives(step: Step) -> Iterator[None]:
    derive = core.call_vjp

    def noted(op: Any, *rest: Any) -> Any:
        before = static_card.last_op()
        gradients = derive(op, *rest)
        step.derived.append((op.id(), before, static_card.last_op()))
        return gradients

    core.call_vjp = noted
    try:
        yield
    finally:
        core.call_vjp = derive


def tell(family: str, case: str) -> dict[str, Any]:
    """Make the program of one step, and tell what it is."""
    level, batch, kind, ops, blocks = case.split("-")
    step = make_step(family, level, Batch(batch), kind, blocks=int(blocks), built=ops == "built")
    told = {**_asked(), **_held(step.program), "unpacked": _unpacked(step)}
    if kind in READ:
        return told
    ledger = Ledger(step)
    told |= {
        **_learnt(step.gradients),
        "loss": static_card.short(step.loss.dtype),
        "kept": ledger.kept,
        "counted": {phase: ledger.total(phase) for phase in ("forward", "repeated", "backward")},
    }
    if kind in QUANTIZED:  # what the estimate is made of are plain layers
        return told
    found = estimated(family, level, Batch(batch), kind, step.model)
    return {**told, "estimated": {"tower": found.tower, "aligner": found.aligner, "decoder": found.decoder}}


# As `Precision.of` reads them of a config with bf16 and the level.
PRECISIONS = {"O1": Precision(4, 4, 8, 2, 4), "O2": Precision(2, 2, 12, 2, 2)}


def estimated(family: str, level: str, batch: Batch, kind: str, model: nn.Layer) -> Activations:
    """Reckon what the step keeps as `tools/estimate_memory.py` does."""
    tokens, again = batch.rows * batch.ends[-1], kind == "recompute"
    shown = 0 if batch.kind == "text" else batch.image_tokens(family)
    size = Size(tokens, shown / tokens, batch.rows)
    return estimate(model, family_of(family), Setup(PRECISIONS[level], size, Cards(), again, again)).activations


def _asked() -> dict[str, Any]:
    card = static_card.card
    return {
        "asked": [[*key, count] for key, count in sorted(card.asked.items())],
        "products": [[*key, count] for key, count in sorted(card.products.items())],
        "flash": [[*key, count] for key, count in sorted(card.flash.items())],
        "cached": card.cached,
        "tensors_of_lengths": len(card.lengths),
        "constants": card.constants,
    }


def _held(program: Any) -> dict[str, Any]:
    """Tell of the program's values which are logits, and which of its products and sums are computed in what."""
    logits, products, counted, widened, scores = [], {}, 0, [], []
    for op in program.global_block().ops:
        name = op.name().removeprefix("pd_op.")
        results = [value for value in op.results() if value.initialized() and value.is_dense_tensor_type()]
        sources = [value for value in op.operands_source() if value.initialized() and value.is_dense_tensor_type()]
        counted += name == "cumsum"
        # Attention alone takes a softmax of its own; the loss's is part of another op.
        scores += [value.shape for value in results if name == "softmax"]
        logits += [[name, value.shape] for value in results if _is_logits(value.shape)]
        if name in ("matmul", "matmul_grad", "linear_v2", "addmm"):
            key = f"{name} {static_card.short(results[0].dtype)}"
            products[key] = products.get(key, 0) + 1
        if name == "cast" and sources[0].dtype in static_card.HALVES and results[0].dtype == paddle.float32:
            widened.append(list(results[0].shape))
    return {"logits": logits, "product_ops": products, "cumsums": counted, "widened": widened, "scores": scores}


def _unpacked(step: Step) -> list[Any]:
    """List what is made in floating point that has the shape of a weight of codes, and of no other parameter."""
    layers = [getattr(layer, "base", layer) for layer in step.model.sublayers()]  # an adapter's own is none of them
    shapes = {tuple(sorted(layer.sizes)) for layer in layers if isinstance(layer, QuantizedLinear)}
    shapes -= {tuple(sorted(parameter.shape)) for parameter in step.model.parameters()}
    if "quantized_linear" in {op for op, *_ in static_card.card.asked}:
        assert shapes, "there is nothing to look for"
    return [
        [static_card.short(value.dtype), value.shape]
        for op in step.program.global_block().ops
        if op.name() != "builtin.parameter"  # those that the layers had before
        for value in op.results()
        if value.initialized() and value.is_dense_tensor_type() and tuple(sorted(value.shape)) in shapes
    ]


def _is_logits(shape: list[int]) -> bool:
    """Tell logits of many tokens from a head's weight, which has as many rows as a hidden state has numbers."""
    rows = math.prod(shape[:-1])
    return bool(shape) and shape[-1] in VOCABULARIES and rows > 1 and rows not in (1536, 3584, 4096)


def _learnt(gradients: Any) -> dict[str, Any]:
    other = [one.name for one, gradient in gradients if gradient is not None and gradient.dtype != one.dtype]
    without = [one.name for one, gradient in gradients if gradient is None]
    return {"parameters": len(gradients), "gradients_of_another_dtype": other, "without_gradient": without}


def main() -> None:
    """Make the cases that the command line names."""
    family, *cases = sys.argv[1:]
    json.dump({case: tell(family, case) for case in cases}, sys.stdout)


if __name__ == "__main__":
    main()
