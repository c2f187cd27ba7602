"""The workload in paddlemix: `python paddlemix_side.py PART SHAPE REPEATS DTYPE [KIND]` prints a JSON object."""

from __future__ import annotations

import os
from itertools import count

import paddlemix

# isort: split
# Paddle stands behind: paddlemix settles how it computes and allocates.
import numpy as np
import paddle
from floor import floor_of_bytes, floor_of_products
from measuring import TRAINING_WARM_UP, Floors, Samples, kind_asked, report, seconds_of
from workload import SHAPES, Shape

from paddlemix._environment import give_back_freed_memory
from paddlemix.generation.cache import KVCache
from paddlemix.generation.reading import CachedReader
from paddlemix.models.layers.linear import Linear
from paddlemix.models.quantized import layers_to_round
from paddlemix.models.qwen2_vl import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from paddlemix.models.qwen2_vl.images import Qwen2VLImageProcessor
from paddlemix.models.replace import replace_layer
from paddlemix.ops import set_compute_dtype
from paddlemix.quantization.linear import QuantizedLinear
from paddlemix.quantization.rounding import rounded
from paddlemix.training.callbacks.fused_adamw import FusedAdamW
from paddlemix.training.callbacks.gradient_norm import GradientNorm

FLOORS: Floors = {}


def train(shape: Shape, repeats: int) -> Samples:
    """Measure forward, backward and AdamW of all parameters."""
    model = build(shape)
    model.train()
    optimizer = paddle.optimizer.AdamW(1e-4, parameters=model.parameters())
    norm = GradientNorm(optimizer, tensor_parallel_degree=1, sharding_degree=1, is_wanted=lambda: False)
    FusedAdamW(norm).take_over(optimizer)
    batch, steps = tensors(shape.batch(shape.rows)), count(1)

    def step() -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)  # as `release_grads`, and as torch does
        give_back_freed_memory(next(steps))  # as the trainer does

    seconds = seconds_of(step, repeats, TRAINING_WARM_UP)
    FLOORS["training_step"] = floor_of_products(step)
    return {"training_step": seconds, "parameters": [size_of(model)]}


@paddle.no_grad()
def generate(shape: Shape, repeats: int) -> Samples:
    """Measure prefill of the whole batch; then one row, token by token."""
    model = build(shape)
    batch = tensors(shape.prompt(shape.rows))
    prefills = seconds_of(lambda: prefill(model, batch, shape.tokens), repeats)
    FLOORS["prefill"] = floor_of_products(lambda: prefill(model, batch, shape.tokens))

    reader = CachedReader(model, shape.prompt(1), 4 * (repeats + 3))
    following = {"tokens": reader.read_prompts().argmax(-1)}

    def decode() -> None:
        following["tokens"] = reader.read(following["tokens"]).argmax(-1)

    tokens = seconds_of(decode, 4 * repeats)
    FLOORS["decode_token"] = floor_of_bytes(decode)
    return {"prefill": prefills, "decode_token": tokens, "parameters": [size_of(model)]}


def images(shape: Shape, repeats: int) -> Samples:
    """Resize, normalise and cut one decoded image."""
    processor = Qwen2VLImageProcessor(max_pixels=shape.image_side**2)
    image = shape.image()
    assert processor.patches(image).shape[0] == shape.patches
    return {"image": seconds_of(lambda: processor.patches(image), 4 * repeats)}


def build(shape: Shape) -> Qwen2VLForConditionalGeneration:
    """Build a random model, in evaluation mode, quantised where that is asked."""
    paddle.seed(0)
    model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(**shape.config()))
    model.eval()
    if kind := kind_asked():
        quantise(model, kind)
    return model


def quantise(model: Qwen2VLForConditionalGeneration, kind: str) -> None:
    """Round the weights that `"quantize"` rounds."""

    def hold(layer: Linear) -> QuantizedLinear:
        return QuantizedLinear(rounded(np.ascontiguousarray(layer.weight.numpy().T), kind), layer.bias)

    linear = {name for name, layer in model.named_sublayers() if type(layer) is Linear}
    for name in layers_to_round(model, linear, model.weight_layout(model.config), with_vision=False):
        replace_layer(model, name, hold)


def prefill(model: Qwen2VLForConditionalGeneration, batch: dict[str, paddle.Tensor], capacity: int):
    """Compute the output for a prompt, its caches filled."""
    caches = [KVCache(capacity) for _ in range(model.config.num_hidden_layers)]
    return model(**batch, past_key_values=caches, last_logits_only=True)


def size_of(model: Qwen2VLForConditionalGeneration) -> int:
    """Count the numbers in the model."""
    return sum(int(parameter.size) for parameter in model.parameters())


def tensors(batch: dict) -> dict[str, paddle.Tensor]:
    """Convert a batch's arrays to tensors."""
    return {key: paddle.to_tensor(array) for key, array in batch.items()}


def compute_in(dtype: str) -> None:
    """Settle what products are computed from.

    Raises:
        SystemExit: they cannot be here.
    """
    if not set_compute_dtype(dtype):
        raise SystemExit(f"no products of {dtype}: external_ops is not built")


if __name__ == "__main__":
    paddle.set_device("cpu")
    report(
        {"train": train, "generate": generate, "images": images},
        {"paddlemix": paddlemix.__version__, "paddle": paddle.__version__, "threads": os.environ["OMP_NUM_THREADS"]},
        SHAPES,
        compute_in,
        FLOORS,
    )
