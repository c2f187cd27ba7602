"""The workload in transformers on torch: `python transformers_side.py PART SHAPE REPEATS DTYPE [KIND]` prints JSON."""

from __future__ import annotations

import os

import torch
import transformers
from measuring import TRAINING_WARM_UP, Samples, kind_asked, report, seconds_of
from torch_weight_only import WEIGHT_ONLY
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from workload import SHAPES, Shape


def train(shape: Shape, repeats: int) -> Samples:
    """Measure forward, backward and AdamW of all parameters."""
    model = build(shape).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    batch = tensors(shape.batch(shape.rows))

    def step() -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return {"training_step": seconds_of(step, repeats, TRAINING_WARM_UP), "parameters": [model.num_parameters()]}


@torch.inference_mode()
def generate(shape: Shape, repeats: int) -> Samples:
    """Measure prefill of the whole batch; then one row, token by token."""
    model = build(shape)
    batch = tensors(shape.prompt(shape.rows))
    prefills = seconds_of(lambda: prefill(model, batch), repeats)

    output = prefill(model, tensors(shape.prompt(1)))
    following = {"token": choose(output), "place": torch.tensor([shape.tokens])}

    def decode() -> None:
        step = model(
            following["token"],
            past_key_values=output.past_key_values,
            cache_position=following["place"],
            use_cache=True,
        )
        following["token"], following["place"] = choose(step), following["place"] + 1
        # The choice is looked at, as a loop that streams would.
        following["token"].numpy()

    return {
        "prefill": prefills,
        "decode_token": seconds_of(decode, 4 * repeats),
        "parameters": [model.num_parameters()],
    }


def images(shape: Shape, repeats: int) -> Samples:
    """Resize, normalise and cut one decoded image."""
    processor = Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=shape.image_side**2)
    image = shape.image()
    assert processor(image, return_tensors="np")["pixel_values"].shape[0] == shape.patches
    return {"image": seconds_of(lambda: processor(image, return_tensors="np"), 4 * repeats)}


def build(shape: Shape) -> Qwen2VLForConditionalGeneration:
    """Build a random model, in evaluation mode, quantised where that is asked."""
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(**shape.config())).eval()
    if kind := kind_asked():
        for parent in model.model.language_model.layers.modules():
            for name, layer in list(parent.named_children()):
                if type(layer) is torch.nn.Linear:
                    setattr(parent, name, WEIGHT_ONLY[kind](layer))
    return model


def prefill(model: Qwen2VLForConditionalGeneration, batch: dict[str, torch.Tensor]):
    """Compute the output for a prompt, its cache filled."""
    return model(**batch, use_cache=True, logits_to_keep=1)


def choose(output) -> torch.Tensor:
    """Choose the likeliest token of each row, int64[B, 1]."""
    return output.logits[:, -1:].argmax(-1)


def tensors(batch: dict) -> dict[str, torch.Tensor]:
    """Convert a batch's arrays to tensors."""
    return {key: torch.from_numpy(array) for key, array in batch.items()}


def compute_in(dtype: str) -> None:
    """Settle what products are computed from: torch's automatic mixed precision, for the rest of the process."""
    if dtype != "float32":
        torch.autocast("cpu", getattr(torch, dtype)).__enter__()


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    report(
        {"train": train, "generate": generate, "images": images},
        {"transformers": transformers.__version__, "torch": torch.__version__, "threads": str(torch.get_num_threads())},
        SHAPES,
        compute_in,
    )
