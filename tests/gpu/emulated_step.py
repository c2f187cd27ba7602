"""Takes small models of a family one training step on an emulated card, and prints how they differ from float32's.

Run it by itself: emulated_step.py LIBRARY FAMILY..., where LIBRARY is that of `host_ops`, or "-" for none. Heads and
windows have their published sizes, all else is small.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import emulated_card  # isort: skip - first: it prepares Paddle
import numpy as np
import paddle
from paddle import nn
from paddlenlp.trainer import Trainer

from paddlemix.contract import Sample
from paddlemix.datasets.collate import PadCollator, TrainingCollator
from paddlemix.datasets.mixing.loss_weights import WeightedSample
from paddlemix.examples.demo.make_model import scale_to_width
from paddlemix.generation.reading import CachedReader
from paddlemix.models.layers.linear import Linear
from paddlemix.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration, Qwen25VLConfig
from paddlemix.models.qwen2_vl import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from paddlemix.models.qwen2_vl.positions import mrope_positions
from paddlemix.models.qwen_vl import QWenConfig, QWenLMHeadModel
from paddlemix.models.replace import replace_layer
from paddlemix.peft.adapter_config import AdapterConfig
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.quantization.linear import QuantizedLinear
from paddlemix.quantization.rounding import rounded

VOCABULARY, IMAGE, TARGETS = 320, 300, 18
SCALE = 1024.0  # of the loss, without which gradients vanish in float16
DECODER = {"hidden_size": 256, "num_attention_heads": 2, "num_hidden_layers": 2, "vocab_size": VOCABULARY}
QWEN2 = {
    **DECODER,
    "intermediate_size": 192,
    "num_key_value_heads": 1,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "image_token_id": IMAGE,
}
# Of each sample: tokens before and behind its image, and the image's patches in time, height and width.
SAMPLES = ((4, 20, (1, 8, 8)), (2, 30, (1, 4, 12)))
QUERIES = 16


def make_qwen2_vl() -> nn.Layer:
    """Qwen2-VL, with a tied head."""
    vision = {"depth": 2, "embed_dim": 160, "num_heads": 2, "mlp_ratio": 2, "hidden_size": 256}
    return Qwen2VLForConditionalGeneration(Qwen2VLConfig(**QWEN2, tie_word_embeddings=True, vision_config=vision))


def make_qwen2_5_vl() -> nn.Layer:
    """Qwen2.5-VL; attention of the first block is in windows of eight patches."""
    vision = {"depth": 2, "hidden_size": 160, "intermediate_size": 192, "num_heads": 2, "out_hidden_size": 256}
    vision |= {"window_size": 56, "fullatt_block_indexes": [1]}
    return Qwen2_5_VLForConditionalGeneration(Qwen25VLConfig(**QWEN2, tie_word_embeddings=False, vision_config=vision))


def make_qwen() -> nn.Layer:
    """Qwen-VL."""
    visual = {"heads": 2, "image_size": 112, "image_start_id": IMAGE, "layers": 2, "mlp_ratio": 2}
    visual |= {"output_dim": 256, "patch_size": 14, "width": 208, "n_queries": QUERIES}
    return QWenLMHeadModel(QWenConfig(**DECODER, intermediate_size=384, kv_channels=128, seq_length=256, visual=visual))


MODELS: dict[str, Callable[[], nn.Layer]] = {
    "qwen2_vl": make_qwen2_vl,
    "qwen2_5_vl": make_qwen2_5_vl,
    "qwen": make_qwen,
}


def samples(family: str) -> Iterator[Sample]:
    """Make what a processor would: an image among text, of which the last tokens are to be learned."""
    random = np.random.default_rng(0)
    for before, behind, (time, height, width) in SAMPLES:
        text = random.integers(0, IMAGE, before + behind)
        if family == "qwen":
            image = [IMAGE, *[IMAGE + 2] * QUERIES, IMAGE + 1]
            media = {"pixel_values": random.standard_normal((1, 3, 112, 112)).astype(np.float32)}
        else:
            image = [IMAGE] * (time * height * width // 4)
            patches = random.standard_normal((time * height * width, 1176)).astype(np.float32)
            media = {"pixel_values": patches, "image_grid_thw": np.array([[time, height, width]])}
        ids = np.concatenate([text[:before], image, text[before:]])
        positions = None
        if family != "qwen":
            positions = mrope_positions(ids, [(time, height, width)], vision_token_ids=(IMAGE,), merge_size=2)
        labels = np.where(np.arange(len(ids)) < len(ids) - TARGETS, -100, ids)
        yield Sample(ids, labels, positions, media)


def make_batch(family: str, batch: str) -> dict[str, paddle.Tensor]:
    """Make what the collator gives: a pack of two samples, or two padded rows."""
    weight = 1 / (TARGETS * len(SAMPLES))
    rows = [[WeightedSample(one, weight)] for one in samples(family)]
    arrays = TrainingCollator(0, packs=batch == "pack")(rows)
    return {name: paddle.to_tensor(array) for name, array in arrays.items()}


def autocast(level: str, dtype: str) -> Any:
    """Return the trainer's autocast."""
    args = SimpleNamespace(fp16_opt_level=level, amp_custom_white_list=None, amp_custom_black_list=None)
    asked = SimpleNamespace(enable_autocast_context_manager=True, amp_dtype=dtype, args=args)
    return Trainer.autocast_smart_context_manager(asked)


def make_model(family: str) -> nn.Layer:
    """Draw weights that half precision holds, as published ones are."""
    paddle.seed(0)
    model = MODELS[family]()
    scale_to_width(model)
    for parameter in model.parameters():
        if parameter.ndim == 1:  # norms and biases too are to be learned from numbers of their own
            parameter.set_value(parameter + 0.1 * paddle.randn(parameter.shape))
        parameter.set_value(parameter.astype("bfloat16").astype("float32"))
    model.train()
    return model


def make_adapted(family: str) -> nn.Layer:
    """Hold the weights of the decoder's blocks as codes of 4 bits, with adapters on them that change what they give."""
    model = make_model(family)
    blocks = {id(layer) for layer in model.decoder.blocks.sublayers() if type(layer) is Linear}
    chosen = [name for name, layer in model.named_sublayers() if id(layer) in blocks]
    for name in chosen:
        replace_layer(model, name, _held_as_codes)
    adapted = MixLoRAModel.adapting(model, AdapterConfig(rank=8, alpha=16), chosen)
    for parameter in adapted.parameters():
        if not parameter.stop_gradient:
            parameter.set_value((0.05 * paddle.randn(parameter.shape)).astype("bfloat16").astype("float32"))
    adapted.train()
    return adapted


def _held_as_codes(layer: nn.Layer) -> nn.Layer:
    return QuantizedLinear(rounded(np.ascontiguousarray(layer.weight.numpy().T), "int4"), layer.bias)


def step(model: nn.Layer, batch: dict[str, paddle.Tensor]) -> dict[str, Any]:
    """Run a forward and a backward pass, and tell of the loss, and of each gradient in float32."""
    loss = model(**batch).loss
    (loss * SCALE).backward()
    trained = {name: one for name, one in model.named_parameters() if not one.stop_gradient}
    return {
        "loss": float(loss),
        "loss_dtype": emulated_card.short(loss.dtype),
        "gradients": {name: one.grad.astype("float32").numpy() / SCALE for name, one in trained.items()},
        "gradients_of_another_dtype": [name for name, one in trained.items() if one.grad.dtype != one.dtype],
    }


def on_card(
    family: str,
    inputs: dict[str, paddle.Tensor],
    level: str,
    dtype: str,
    make: Callable[[str], nn.Layer] = make_model,
) -> dict[str, Any]:
    """Take a step on the card, and tell what was asked of it."""
    model = make(family)
    if level == "O2":
        model.to(dtype=dtype)
    with emulated_card.inserted() as card, autocast(level, dtype):
        taken = step(model, inputs)
    asked, flash = ([[*key, count] for key, count in sorted(found.items())] for found in (card.asked, card.flash))
    return {**taken, "asked": asked, "flash": flash}


def compare(family: str, libraries: dict[str, Path | None]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Tell of each batch, level, dtype and kind of ops how far a step on the card is from the same in float32."""
    for batch in ("pack", "padded"):
        inputs = make_batch(family, batch)
        wide = step(make_model(family), inputs)
        for ops, library in libraries.items():
            emulated_card.card.ops = library
            for level in ("O1", "O2"):
                for dtype in ("bfloat16", "float16") if (batch, ops) == ("pack", "built") else ("bfloat16",):
                    taken = on_card(family, inputs, level, dtype)
                    yield f"{family}-{batch}-{level}-{dtype}-{ops}", beside(taken, wide)


def beside(taken: dict[str, Any], wide: dict[str, Any]) -> dict[str, Any]:
    """Tell how far a step is from the same in float32."""
    gradients = taken.pop("gradients")
    norms = {name: float(np.linalg.norm(one)) for name, one in wide["gradients"].items()}
    distances = {name: float(np.linalg.norm(one - wide["gradients"][name])) for name, one in gradients.items()}
    return {"float32_loss": wide["loss"], "float32_norms": norms, "distances": distances, **taken}


def compare_adapted(family: str, library: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Tell of steps that train adapters on weights of codes how far each is from the same in float32."""
    inputs = make_batch(family, "pack")
    wide = step(make_adapted(family), inputs)
    emulated_card.card.ops = library
    for level, dtype in (("O2", "bfloat16"), ("O1", "float16")):
        yield f"{family}-{level}-{dtype}", beside(on_card(family, inputs, level, dtype, make_adapted), wide)


def answer(
    family: str, rows: int, dtype: str = "float32", make: Callable[[str], nn.Layer] = make_model
) -> list[np.ndarray]:
    """Read prompts with images, of which the shorter is padded on the left, and two more tokens of each row.

    Returns:
        The logits behind each of the three, float32[rows, vocabulary].
    """
    model = make(family)
    model.eval()
    batch = PadCollator(0, side="left")(list(samples(family))[:rows])
    with nullcontext() if dtype == "float32" else emulated_card.inserted():
        model.to(dtype=dtype)
        reader = CachedReader(model, batch, 2)
        return [reader.read_prompts(), *(reader.read(np.arange(rows) + first) for first in (3, 7))]


def compare_answers(family: str, libraries: dict[str, Path | None]) -> Iterator[tuple[str, list[float]]]:
    """Tell by rows and kind of ops how far logits on the card are from those in float32, in their order."""
    for rows in (1, 2):
        wide = answer(family, rows)
        for ops, library in libraries.items():
            emulated_card.card.ops = library
            yield f"{family}-{rows}-{ops}", distances_of(answer(family, rows, "bfloat16"), wide)


def compare_answers_of_codes(family: str) -> list[float]:
    """Tell the same of two rows and a model whose weights are codes, with the ops that are there."""
    wide = answer(family, 2, make=make_adapted)
    return distances_of(answer(family, 2, "bfloat16", make_adapted), wide)


def distances_of(half: list[np.ndarray], wide: list[np.ndarray]) -> list[float]:
    """Tell how far each array is from another, in parts of that."""
    return [float(np.linalg.norm(one - true) / np.linalg.norm(true)) for one, true in zip(half, wide, strict=True)]


def main() -> None:
    """Compare the families that the command line names."""
    name, *families = sys.argv[1:]
    libraries = {"unbuilt": None, **({} if name == "-" else {"built": Path(name)})}
    steps = {case: found for family in families for case, found in compare(family, libraries)}
    answers = {case: found for family in families for case, found in compare_answers(family, libraries)}
    *_, library = libraries.values()  # that of weights of codes too
    adapted = {case: found for family in families for case, found in compare_adapted(family, library)}
    of_codes = {f"{family}-logits": compare_answers_of_codes(family) for family in families}
    found = {"steps": steps, "answers": answers, "adapted": adapted, "answers_of_codes": of_codes}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
