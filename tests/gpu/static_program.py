"""Makes a family's training step, prefill or token as static programs and prints what each of them is as JSON.

Run it by itself: static_program.py FAMILY CASE..., a case such as O2-pack-lora-built-2: level (`half` is weights in
half precision without autocast), batch, what is trained or else read, whether there are built ops, blocks. Half
precision is bfloat16: of float16 a CPU build refuses to plan products.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import static_card  # isort: skip - first: it prepares Paddle
import numpy as np
import paddle
from paddle import nn
from paddle.autograd.backward_utils import ValueSet
from paddle.autograd.ir_backward import append_backward
from paddlenlp.trainer import Trainer
from paddlenlp.transformers.model_utils import no_init_weights

from paddlemix import handover
from paddlemix.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration, Qwen25VLConfig
from paddlemix.models.qwen2_vl import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from paddlemix.models.qwen_vl import QWenConfig, QWenLMHeadModel
from paddlemix.peft.adapter_config import AdapterConfig
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.peft.targets import HEAD, linear_layers

READ = ("loss", "prefill", "token")
VOCABULARY, TOKENS, TARGETS = 151936, 1000, 200
VIEWS = {"reshape", "squeeze", "unsqueeze"}
# Gradients that are given what went forwards, and look at its shape alone.
NEED_SHAPES_ALONE = {
    *("add_grad", "concat_grad", "expand_grad", "gather_grad", "index_select_grad", "mean_grad", "reshape_grad"),
    *("roll_grad", "slice_grad", "squeeze_grad", "subtract_grad", "sum_grad", "unsqueeze_grad"),
}
SIZES = {"float32": 4, "bfloat16": 2, "float16": 2, "int64": 8, "int32": 4, "bool": 1}
IMAGE_TOKENS = {"qwen2_vl": 300, "qwen2_5_vl": 300}
PIXELS = {"qwen2_vl": [1200, 1176], "qwen2_5_vl": [1200, 1176], "qwen": [2, 3, 448, 448]}


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


def make_inputs(family: str, batch: str, model: nn.Layer) -> dict[str, Any]:
    """Make what the collator gives: a pack of two samples, a pack without images, or two rows that are padded.

    Padding on the right stands in no mask; `right` and `left` have one.
    """
    is_pack = batch in ("pack", "text")
    rows = 1 if is_pack else 2
    arrays: dict[str, np.ndarray] = {name: np.zeros([rows, TOKENS], np.int64) for name in ("input_ids", "labels")}
    arrays["labels"] -= 100
    arrays["labels"][0, -TARGETS:] = 7
    arrays["loss_weights"] = np.ones([rows, TOKENS], np.float32)
    axes = [] if family == "qwen" else [3]
    mask = {"attention_mask": padding_mask(rows, TOKENS, batch)} if batch in ("left", "right") else {}
    if is_pack:
        arrays["cu_seqlens"] = np.array([0, 400, TOKENS], np.int32)
    if axes or is_pack:
        arrays["position_ids"] = np.zeros([*axes, rows, TOKENS], np.int64)
    pixels = {}
    if batch != "text":
        pixels["pixel_values"] = paddle.static.data("pixel_values", PIXELS[family], "float32")
        arrays |= _show_images(family, arrays["input_ids"], model.config)
    laid = model.lay_out(model.config, {**arrays, **mask, **pixels})
    layout = handover.Layout(laid, {name: static_card.known(array) for name, array in laid.items()})
    return {**{name: static_card.known(array) for name, array in arrays.items()}, **mask, **pixels, "layout": layout}


def _show_images(family: str, input_ids: np.ndarray, config: Any) -> dict[str, np.ndarray]:
    """Let two images stand among the last row's tokens, and give what is said of them beside pixels."""
    if family != "qwen":
        input_ids[-1, : IMAGE_TOKENS[family]] = config.image_token_id
        return {"image_grid_thw": np.array([[1, 20, 20], [1, 40, 20]])}
    start, queries = config.visual.image_start_id, config.visual.n_queries
    for place in (0, 400):
        input_ids[-1, place], input_ids[-1, place + queries + 1] = start, start + 1
    return {}


def padding_mask(rows: int, span: int, side: str) -> np.ndarray:
    """Make a mask int64[rows, span] that hides 300 places of the first row."""
    mask = np.ones([rows, span], np.int64)
    mask[0, :300] = 0
    return mask if side == "left" else mask[:, ::-1]


class Cache:
    """A layer's cache, which a program cannot write to.

    Args:
        config: of the model.
        dtype: of keys.
        length: tokens that it holds.
    """

    def __init__(self, config: Any, dtype: str, length: int) -> None:
        self.length, self.prefilled, self.rows = length, length, None
        self._shape, self._dtype = config.decoder_shape, dtype

    def extend(self, key: Any, value: Any) -> tuple[Any, Any]:
        """Take the prompt's."""
        assert not self.length, "what continues a prompt copies keys and values that the cache holds"
        return key, value

    def open(self, length: int) -> tuple[Any, Any]:
        """Return the memory."""
        self.length += length
        shape = [2, TOKENS + 100, self._shape.kv_heads, self._shape.head_dim]
        return tuple(paddle.static.data(f"cache{id(self)}{name}", shape, self._dtype) for name in "kv")


def autocast(level: str) -> Any:
    """Return the trainer's autocast."""
    if level == "half":
        return nullcontext()
    args = SimpleNamespace(fp16_opt_level=level, amp_custom_white_list=None, amp_custom_black_list=None)
    asked = SimpleNamespace(enable_autocast_context_manager=True, amp_dtype="bfloat16", args=args)
    return Trainer.autocast_smart_context_manager(asked)


def make_step(family: str, case: str) -> dict[str, Any]:
    """Make the program of one step, and tell what it is."""
    level, batch, kind, ops, blocks = case.split("-")
    static_card.insert(static_card.Card(has_built_ops=ops == "built"))
    static_card.on_card(is_forward=True)
    program = paddle.static.Program()
    with paddle.utils.unique_name.guard(), paddle.static.program_guard(program, paddle.static.Program()):
        paddle.set_default_dtype("float32" if level == "O1" else "bfloat16")
        with no_init_weights():
            model = MODELS[family](int(blocks))
        if kind == "lora":
            layers = [name for name in linear_layers(model) if name != HEAD]
            model = MixLoRAModel.adapting(model, AdapterConfig(rank=8, alpha=16), layers)
        paddle.set_default_dtype("float32")
        model.train()
        if kind == "recompute":
            model.set_recompute(vision=True, language=True)
        inputs = make_inputs(family, batch, model)
        static_card.card.constants = 0
        if kind in READ:
            with autocast(level), paddle.no_grad():
                read(model.eval(), kind, inputs)
            return {**_asked(), **_held(program)}
        with autocast(level):
            loss = model(**inputs).loss
        static_card.on_card(is_forward=False)
        forward = len(program.global_block().ops)
        trained = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
        gradients = append_backward(loss, parameter_list=trained)
    kept = _kept(program, forward, rows_of(family))
    return {**_asked(), **_held(program), **_learnt(gradients), "kept": kept, "loss": static_card.short(loss.dtype)}


def read(model: nn.Layer, kind: str, inputs: dict[str, Any]) -> None:
    """Make what evaluation, a prompt, or one more token of each row computes."""
    if kind == "loss":
        model(**inputs)
        return
    del inputs["labels"], inputs["loss_weights"]
    length = TOKENS if kind == "token" else 0
    caches = [Cache(model.config, "bfloat16", length) for _ in range(model.config.num_hidden_layers)]
    if kind == "token":
        rows = 2
        inputs = {
            "input_ids": paddle.static.data("one_token", [rows, 1], "int64"),
            "position_ids": paddle.static.data("places", [*inputs["position_ids"].shape[:-2], rows, 1], "int64")
            if "position_ids" in inputs
            else None,
            "attention_mask": padding_mask(rows, TOKENS + 1, "left") if "attention_mask" in inputs else None,
        }
    model(**inputs, past_key_values=caches, last_logits_only=True)


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
