"""Makes a family's training step as static programs and prints what each of them is as JSON.

Run it by itself: static_program.py FAMILY CASE..., a case such as O2-pack-lora-built-2: level, batch, what is trained,
whether there are built ops, blocks. Half precision is bfloat16: of float16 a CPU build refuses to plan products.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import static_card  # isort: skip - first: it prepares Paddle
import paddle
from paddle import nn
from paddle.autograd.backward_utils import ValueSet
from paddle.autograd.ir_backward import append_backward
from paddlenlp.trainer import Trainer
from paddlenlp.transformers.model_utils import no_init_weights

from paddlemix.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration, Qwen25VLConfig
from paddlemix.models.qwen2_vl import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from paddlemix.models.qwen_vl import QWenConfig, QWenLMHeadModel
from paddlemix.peft.adapter_config import AdapterConfig
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.peft.targets import HEAD, linear_layers

VOCABULARY, TOKENS, TARGETS = 151936, 1000, 200
VIEWS = {"reshape", "squeeze", "unsqueeze"}
# Gradients that are given what went forwards, and look at its shape alone.
NEED_SHAPES_ALONE = {
    *("add_grad", "concat_grad", "expand_grad", "gather_grad", "index_select_grad", "mean_grad", "reshape_grad"),
    *("roll_grad", "slice_grad", "squeeze_grad", "subtract_grad", "sum_grad", "unsqueeze_grad"),
}
SIZES = {"float32": 4, "bfloat16": 2, "float16": 2, "int64": 8, "int32": 4, "bool": 1}
IMAGE_TOKENS = {"qwen2_vl": 300, "qwen2_5_vl": 300, "qwen": 512}


def make_qwen2_vl(blocks: int) -> nn.Layer:
    """Qwen2-VL 2B with fewer blocks."""
    vision = {"depth": blocks, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4}
    return Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(
            hidden_size=1536,
            intermediate_size=8960,
            num_hidden_layers=blocks,
            num_attention_heads=12,
            num_key_value_heads=2,
            vocab_size=VOCABULARY,
            tie_word_embeddings=True,
            rope_scaling={"type": "mrope", "mrope_section": [16, 24, 24]},
            vision_config={**vision, "hidden_size": 1536},
        )
    )


def make_qwen2_5_vl(blocks: int) -> nn.Layer:
    """Qwen2.5-VL 7B with fewer blocks; attention of the first is in windows."""
    vision = {"depth": blocks, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen25VLConfig(
            hidden_size=3584,
            intermediate_size=18944,
            num_hidden_layers=blocks,
            num_attention_heads=28,
            num_key_value_heads=4,
            vocab_size=VOCABULARY,
            tie_word_embeddings=False,
            rope_scaling={"type": "mrope", "mrope_section": [16, 24, 24]},
            vision_config={**vision, "out_hidden_size": 3584, "fullatt_block_indexes": [1]},
        )
    )


def make_qwen(blocks: int) -> nn.Layer:
    """Qwen-VL with fewer blocks."""
    visual = {"heads": 16, "image_size": 448, "image_start_id": 151857, "layers": blocks, "mlp_ratio": 4.9231}
    return QWenLMHeadModel(
        QWenConfig(
            hidden_size=4096,
            intermediate_size=22016,
            num_hidden_layers=blocks,
            num_attention_heads=32,
            vocab_size=VOCABULARY,
            kv_channels=128,
            seq_length=2048,
            visual={**visual, "output_dim": 4096, "patch_size": 14, "width": 1664, "n_queries": 256},
        )
    )


MODELS: dict[str, Callable[[int], nn.Layer]] = {
    "qwen2_vl": make_qwen2_vl,
    "qwen2_5_vl": make_qwen2_5_vl,
    "qwen": make_qwen,
}


def make_inputs(family: str, batch: str) -> dict[str, Any]:
    """Make what the collator gives: a pack of two samples, two padded rows, or a pack without images."""
    data = paddle.static.data
    rows = 2 if batch == "padded" else 1
    inputs = {name: data(name, [rows, TOKENS], "int64") for name in ("input_ids", "labels")}
    inputs["loss_weights"] = data("loss_weights", [rows, TOKENS], "float32")
    axes = [] if family == "qwen" else [3]
    if batch == "padded":
        inputs["attention_mask"] = data("attention_mask", [rows, TOKENS], "int64")
    else:
        inputs["cu_seqlens"] = static_card.known([0, 400, TOKENS], "int32")
    if axes or batch != "padded":
        inputs["position_ids"] = data("position_ids", [*axes, rows, TOKENS], "int64")
    if batch != "text" and family == "qwen":
        inputs["pixel_values"] = data("pixel_values", [2, 3, 448, 448], "float32")
    elif batch != "text":
        inputs["pixel_values"] = data("pixel_values", [4 * IMAGE_TOKENS[family], 1176], "float32")
        inputs["image_grid_thw"] = static_card.known([[1, 20, 20], [1, 40, 20]], "int64")
    return inputs


def autocast(level: str) -> Any:
    """Return the trainer's autocast."""
    args = SimpleNamespace(fp16_opt_level=level, amp_custom_white_list=None, amp_custom_black_list=None)
    asked = SimpleNamespace(enable_autocast_context_manager=True, amp_dtype="bfloat16", args=args)
    return Trainer.autocast_smart_context_manager(asked)


def make_step(family: str, case: str) -> dict[str, Any]:
    """Make the program of one step, and tell what it is."""
    level, batch, kind, ops, blocks = case.split("-")
    places = {"vision_tokens.py": IMAGE_TOKENS[family], "cross_entropy.py": TARGETS, "loss.py": TARGETS}
    static_card.insert(static_card.Card(has_built_ops=ops == "built", true_places=places))
    static_card.on_card(is_forward=True)
    program = paddle.static.Program()
    with paddle.utils.unique_name.guard(), paddle.static.program_guard(program, paddle.static.Program()):
        paddle.set_default_dtype("bfloat16" if level == "O2" else "float32")
        with no_init_weights():
            model = MODELS[family](int(blocks))
        if kind == "lora":
            layers = [name for name in linear_layers(model) if name != HEAD]
            model = MixLoRAModel.adapting(model, AdapterConfig(rank=8, alpha=16), layers)
        paddle.set_default_dtype("float32")
        model.train()
        if kind == "recompute":
            model.set_recompute(vision=True, language=True)
        inputs = make_inputs(family, batch)
        static_card.card.constants = 0
        with autocast(level):
            loss = model(**inputs).loss
        static_card.on_card(is_forward=False)
        forward = len(program.global_block().ops)
        trained = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
        gradients = append_backward(loss, parameter_list=trained)
    kept = _kept(program, forward, rows_of(family))
    return {**_asked(), **_held(program), **_learnt(gradients), "kept": kept, "loss": static_card.short(loss.dtype)}


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


def rows_of(family: str) -> dict[str, set[int]]:
    """Return the axes by which values of the decoder's tokens and of the tower's patches are known."""
    return {"decoder": {TOKENS}, "tower": {1024, 2048} if family == "qwen" else {4 * IMAGE_TOKENS[family]}}


def _kept(program: Any, forward: int, rows: dict[str, set[int]]) -> dict[str, int]:
    """Count the bytes of what the first ops of a program make and the others need, by where it was made."""
    ops = program.global_block().ops
    made = ValueSet(value for op in ops[:forward] for value in op.results())
    needing = (op for op in ops[forward:] if op.name().removeprefix("pd_op.") not in NEED_SHAPES_ALONE)
    used = [value for op in needing for value in op.operands_source() if value in made]
    kept = ValueSet(map(_source, [*used, *static_card.card.kept]))
    found = [value for value in kept if value.initialized() and value.is_dense_tensor_type()]
    return {where: sum(_bytes(value) for value in found if axes & {*value.shape}) for where, axes in rows.items()}


def _source(value: Any) -> Any:
    """Return what a view lets be seen."""
    while value.get_defining_op().name().removeprefix("pd_op.") in VIEWS:
        value = value.get_defining_op().operands_source()[0]
    return value


def _bytes(value: Any) -> int:
    return math.prod(value.shape) * SIZES[static_card.short(value.dtype)]


def _is_logits(shape: list[int]) -> bool:
    """Tell logits of many tokens from a head's weight, which has as many rows as a hidden state has numbers."""
    rows = math.prod(shape[:-1])
    return bool(shape) and shape[-1] == VOCABULARY and rows > 1 and rows not in (1536, 3584, 4096)


def _learnt(gradients: Any) -> dict[str, Any]:
    other = [one.name for one, gradient in gradients if gradient is not None and gradient.dtype != one.dtype]
    without = [one.name for one, gradient in gradients if gradient is None]
    return {"parameters": len(gradients), "gradients_of_another_dtype": other, "without_gradient": without}


def main() -> None:
    """Make the cases that the command line names."""
    family, *cases = sys.argv[1:]
    json.dump({case: make_step(family, case) for case in cases}, sys.stdout)


if __name__ == "__main__":
    main()
