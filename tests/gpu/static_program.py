"""Makes a family's training step as static programs and prints what each of them is as JSON.

Run it by itself: static_program.py FAMILY CASE..., a case such as O2-pack-lora-built-2: level, batch, what is trained,
whether there are built ops, blocks. Half precision is bfloat16: of float16 a CPU build refuses to plan products.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import static_card  # isort: skip - first: it prepares Paddle
import paddle
from paddle import nn
from paddle.autograd.ir_backward import append_backward
from paddle.base import core
from paddlenlp.trainer import Trainer
from paddlenlp.transformers.model_utils import no_init_weights
from static_ledger import Ledger

from paddlemix.estimate.activations import Activations
from paddlemix.estimate.setup import Batch as Size
from paddlemix.estimate.setup import Cards, Kernels, Precision, Setup
from paddlemix.estimate.total import estimate
from paddlemix.models.family import Family
from paddlemix.models.registry import FAMILIES
from paddlemix.peft.adapter_config import AdapterConfig
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.peft.targets import HEAD, linear_layers

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
        kind: a pack of samples, padded rows, or "text", a pack without images.
        ends: where the samples of a pack end, 0 before them.
        rows: of a padded batch.
        targets: tokens that are asked for, of all rows.
        grids: patches of each image in time, height and width; Qwen-VL takes as many of its own images.
    """

    kind: str
    ends: tuple[int, ...] = (0, 400, 1000)
    rows: int = 2
    targets: int = 200
    grids: tuple[tuple[int, int, int], ...] = ((1, 20, 20), (1, 40, 20))

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


def make_inputs(family: str, batch: Batch) -> dict[str, Any]:
    """Make what the collator gives."""
    data = paddle.static.data
    rows, tokens = (batch.rows if batch.kind == "padded" else 1), batch.ends[-1]
    inputs = {name: data(name, [rows, tokens], "int64") for name in ("input_ids", "labels")}
    inputs["loss_weights"] = data("loss_weights", [rows, tokens], "float32")
    axes = [] if family == "qwen" else [3]
    if batch.kind == "padded":
        inputs["attention_mask"] = data("attention_mask", [rows, tokens], "int64")
    else:
        inputs["cu_seqlens"] = static_card.known(list(batch.ends), "int32")
    if axes or batch.kind != "padded":
        inputs["position_ids"] = data("position_ids", [*axes, rows, tokens], "int64")
    if batch.kind != "text" and family == "qwen":
        inputs["pixel_values"] = data("pixel_values", [len(batch.grids), 3, 448, 448], "float32")
    elif batch.kind != "text":
        patches = 4 * batch.image_tokens(family)
        inputs["pixel_values"] = data("pixel_values", [patches, 1176], "float32")
        inputs["image_grid_thw"] = static_card.known(list(map(list, batch.grids)), "int64")
    return inputs


def autocast(level: str) -> Any:
    """Return the trainer's autocast."""
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


def insert_card(family: str, batch: Batch, *, has_built_ops: bool = True) -> None:
    """Put in a card that knows how many places a batch has."""
    places = {"vision_tokens.py": batch.image_tokens(family), "cross_entropy.py": batch.targets}
    static_card.insert(static_card.Card(has_built_ops, true_places={**places, "loss.py": batch.targets}))


def make_trained(family: str, name: str, level: str, kind: str, blocks: int | None) -> nn.Layer:
    """Make the model that a step trains, with weights in the precision that the level holds."""
    paddle.set_default_dtype("bfloat16" if level == "O2" else "float32")
    model = make_model(family, name, blocks)
    if kind == "lora":
        layers = [one for one in linear_layers(model) if one != HEAD]
        model = MixLoRAModel.adapting(model, AdapterConfig(rank=8, alpha=16), layers)
    paddle.set_default_dtype("float32")
    if kind == "recompute":
        model.set_recompute(vision=True, language=True)
    return model


def make_step(
    family: str, level: str, batch: Batch, kind: str, *, name: str = "", blocks: int | None = None, built: bool = True
) -> Step:
    """Make the program of one forward and backward pass.

    Args:
        family: `model_type`.
        level: O1 or O2.
        batch: what it is given.
        kind: of training: full, lora or recompute.
        name: of the published model; "" takes the one of tests.
        blocks: of tower and decoder, in place of the published ones.
        built: whether there are built ops.

    Returns:
        The step.
    """
    insert_card(family, batch, has_built_ops=built)
    static_card.on_card(is_forward=True)
    program = paddle.static.Program()
    with paddle.utils.unique_name.guard(), paddle.static.program_guard(program, paddle.static.Program()):
        model = make_trained(family, name or MODELS[family], level, kind, blocks)
        model.train()
        step = Step(program, model)
        _mark_parts(step)
        inputs = make_inputs(family, batch)
        static_card.card.constants = static_card.card.waits = 0
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
        length: tokens that it holds.
    """

    def __init__(self, shape: Any, length: int) -> None:
        self.length = self.prefilled = length
        self._shape = [1, length + 1, shape.kv_heads, shape.head_dim]

    def extend(self, key: Any, value: Any) -> tuple[Any, Any]:
        """Return what a prompt brings, or all that is held together with one more token."""
        return (self._whole("key"), self._whole("value")) if self.length else (key, value)

    def _whole(self, name: str) -> Any:
        return paddle.static.data(f"{name}{id(self)}", self._shape, "bfloat16")


def make_reading(family: str, batch: Batch, what: str, *, name: str, blocks: int | None = None) -> Step:
    """Make the program that reads a prompt, or that computes one more token behind it; weights are in bfloat16.

    Args:
        family: `model_type`.
        batch: whose first row is the prompt.
        what: prefill or token.
        name: of the published model.
        blocks: of tower and decoder, in place of the published ones.

    Returns:
        The step, without loss and gradients.
    """
    insert_card(family, batch)
    static_card.on_card(is_forward=True)
    program, is_token = paddle.static.Program(), what == "token"
    with paddle.utils.unique_name.guard(), paddle.static.program_guard(program, paddle.static.Program()):
        model = make_trained(family, name, "O2", "full", blocks).eval()
        step = Step(program, model)
        _mark_parts(step)
        inputs = make_inputs(family, replace(batch, kind="padded", rows=1))
        inputs = {key: inputs[key] for key in ("input_ids", "position_ids", *model.own_inputs) if key in inputs}
        tokens = batch.ends[-1]
        if is_token:
            axes = [] if family == "qwen" else [3]
            ids, places = (paddle.static.data(key, [*of, 1, 1], "int64") for key, of in (("id", []), ("place", axes)))
            inputs = {"input_ids": ids, "position_ids": places}
        caches = [Cache(model.config.decoder_shape, tokens if is_token else 0) for _ in model.decoder.blocks]
        static_card.card.constants = static_card.card.waits = 0
        with paddle.no_grad():
            model(**inputs, past_key_values=caches, last_logits_only=True)
        step.forward_end = static_card.last_op()
    return step


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
    found, ledger = estimated(family, level, Batch(batch), kind, step.model), Ledger(step)
    return {
        **_asked(),
        **_held(step.program),
        **_learnt(step.gradients),
        "loss": static_card.short(step.loss.dtype),
        "kept": ledger.kept,
        "counted": {phase: ledger.total(phase) for phase in ("forward", "repeated", "backward")},
        "estimated": {"tower": found.tower, "aligner": found.aligner, "decoder": found.decoder},
    }


# As `Precision.of` reads them of a config with bf16 and the level.
PRECISIONS = {"O1": Precision(4, 4, 8, 2, 4), "O2": Precision(2, 2, 12, 2, 2)}


def estimated(family: str, level: str, batch: Batch, kind: str, model: nn.Layer) -> Activations:
    """Reckon what the step keeps as `tools/estimate_memory.py` does."""
    length, rows = batch.ends[-1], batch.rows if batch.kind == "padded" else 1
    shown = 0 if batch.kind == "text" else batch.image_tokens(family)
    size = Size(rows * length, shown / (rows * length), length)
    precision, again = PRECISIONS[level], kind == "recompute"
    kernels = Kernels.of(precision, packs=batch.kind != "padded")
    return estimate(model, family_of(family), Setup(precision, size, Cards(), again, again, kernels)).activations


def _asked() -> dict[str, Any]:
    card = static_card.card
    return {
        "asked": [[*key, count] for key, count in sorted(card.asked.items())],
        "products": [[*key, count] for key, count in sorted(card.products.items())],
        "flash": [[*key, count] for key, count in sorted(card.flash.items())],
        "tensors_of_lengths": len(card.lengths),
        "constants": card.constants,
    }


def _held(program: Any) -> dict[str, Any]:
    """Tell of the program's values which are logits, and which of its products and sums are computed in what."""
    logits, products, counted, widened = [], {}, 0, []
    for op in program.global_block().ops:
        name = op.name().removeprefix("pd_op.")
        results = [value for value in op.results() if value.initialized() and value.is_dense_tensor_type()]
        sources = [value for value in op.operands_source() if value.initialized() and value.is_dense_tensor_type()]
        counted += name == "cumsum"
        logits += [[name, value.shape] for value in results if _is_logits(value.shape)]
        if name in ("matmul", "matmul_grad", "linear_v2", "addmm"):
            key = f"{name} {static_card.short(results[0].dtype)}"
            products[key] = products.get(key, 0) + 1
        if name == "cast" and sources[0].dtype in static_card.HALVES and results[0].dtype == paddle.float32:
            widened.append(list(results[0].shape))
    return {"logits": logits, "product_ops": products, "cumsums": counted, "widened": widened}


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
