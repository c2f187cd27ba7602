"""The workload in transformers on torch: `python transformers_side.py PART SHAPE REPEATS DTYPE [KIND]` prints JSON."""

from __future__ import annotations

import os

import torch
import transformers
from measuring import TRAINING_WARM_UP, Samples, kind_asked, report, seconds_of
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


class Int8Linear(torch.nn.Module):
    """torch's product with weights of 8 bits; each output has a scale."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.bias = layer.bias
        self.scales = layer.weight.detach().abs().amax(dim=1) / 127
        self.codes = (layer.weight.detach() / self.scales[:, None]).round().to(torch.int8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform float[..., in] to float[..., out]."""
        y = torch._weight_int8pack_mm(x.flatten(0, -2), self.codes, self.scales).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias


class Int4Linear(torch.nn.Module):
    """torch's product with weights of 4 bits; 128 inputs of an output, 32 of short ones, share a scale and a zero."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.bias = layer.bias
        self.group = 128 if layer.in_features % 128 == 0 else 32
        groups = layer.weight.detach().unflatten(1, (-1, self.group))
        least, most = groups.amin(dim=2).clamp(max=0), groups.amax(dim=2).clamp(min=0)
        scales = (most - least) / 15
        codes = ((groups - least[..., None]) / scales[..., None]).round().clamp(0, 15).to(torch.int32).flatten(1)
        self.codes = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        # What code 8 stands for beside the scale.
        self.scales = torch.stack([scales, least + 8 * scales], dim=2).transpose(0, 1).contiguous()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform float[..., in] to float[..., out]."""
        product = torch.ops.aten._weight_int4pack_mm_for_cpu
        y = product(x.flatten(0, -2), self.codes, self.group, self.scales).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias


# What torch multiplies without quantising activations.
WEIGHT_ONLY = {"int8": Int8Linear, "int4": Int4Linear}


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
