"""What the reference implementation of Qwen2-VL or a kin computes, as arrays. Needs torch and transformers."""

from __future__ import annotations

import numpy as np
import torch
from reference_batches import PAD, Batch, Grid, make_pixels
from transformers import PreTrainedModel
from transformers.models.qwen2_vl import modeling_qwen2_vl as reference

NEW_TOKENS = 12
# AdamW's usual eps of 1e-8 steps by the sign of a gradient that is nothing but noise, and sends two correct
# implementations 2e-4 apart there; with this one they stay within 1e-5.
OPTIMIZER = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-5, "weight_decay": 0.1}
STEPS = 5

Model = PreTrainedModel
LAYOUT = ["input_ids", "image_grid_thw", "video_grid_thw", "second_per_grid_ts", "attention_mask"]


def tensors_of(batch: Batch, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """A batch as tensors, its pixels in `dtype`."""
    tensors = {key: torch.from_numpy(value) for key, value in batch.items()}
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in tensors.items()}


def positions(model: Model, batch: Batch) -> Batch:
    """M-RoPE positions and deltas."""
    tensors = tensors_of(batch)
    position_ids, deltas = model.model.get_rope_index(**{key: tensors[key] for key in LAYOUT if key in tensors})
    return {"position_ids": position_ids.numpy(), "rope_deltas": deltas.numpy()}


def run(model: Model, batch: Batch) -> Batch:
    """Positions, logits and loss."""
    laid_out = positions(model, batch)
    with torch.no_grad():
        output = model(**tensors_of(batch, model.dtype), position_ids=torch.from_numpy(laid_out["position_ids"]))
    return {**laid_out, "logits": output.logits.numpy(), "loss": output.loss.numpy()}


def float64_noise(model: Model, batch: Batch, logits: np.ndarray) -> float:
    """How far the logits of tokens lie from what float64 gives."""
    wide = run(model.double(), batch)["logits"]
    model.float()
    return float(np.abs(wide - logits)[batch["attention_mask"] == 1].max())


def vision_stages(model: Model, rng: np.random.Generator, grids: list[Grid], *, with_output: bool) -> Batch:
    """What leaves each part of the vision tower, for `grids` in one go; and the tower, where that is not the merger."""
    tower = model.model.visual
    pixels = make_pixels(grids, rng)
    parts = {"patch_embed": tower.patch_embed, "merger": tower.merger}
    parts |= {f"blocks.{index}": block for index, block in enumerate(tower.blocks)}
    parts |= {"output": tower} if with_output else {}
    stages = outputs_of(parts, lambda: tower(torch.from_numpy(pixels), torch.tensor(grids)))
    return {
        "vision/pixel_values": pixels,
        "vision/grid_thw": np.array(grids),
        **{f"vision/{name}": output for name, output in stages.items()},
    }


def decoder_stages(model: Model, batch: Batch) -> Batch:
    """What leaves each decoder layer and the last norm."""
    decoder = model.model.language_model
    parts = {f"layers.{index}": layer for index, layer in enumerate(decoder.layers)} | {"norm": decoder.norm}
    stages = outputs_of(parts, lambda: model(**tensors_of(batch)))
    return {f"decoder/{name}": output for name, output in stages.items()}


def outputs_of(parts: dict, call) -> Batch:
    """What each of `parts` returns during `call()`; of a tuple its first."""
    found = {}

    def keep(name: str, output) -> None:
        found[name] = (output[0] if isinstance(output, tuple) else output).detach().numpy()

    hooks = [
        part.register_forward_hook(lambda _, __, output, name=name: keep(name, output)) for name, part in parts.items()
    ]
    with torch.no_grad():
        call()
    for hook in hooks:
        hook.remove()
    return found


def rotary(model: Model, position_ids: np.ndarray, grids: np.ndarray) -> Batch:
    """Random queries float[..., 1, head size] before and after they were turned, in the decoder and in the tower."""
    decoder, tower = model.model.language_model, model.model.visual
    config = decoder.config
    rng = np.random.default_rng(0)
    query = random_steps(rng, *position_ids.shape[1:], 1, config.hidden_size // config.num_attention_heads)
    angles = decoder.rotary_emb(query, torch.from_numpy(position_ids))
    sections = config.rope_scaling["mrope_section"]
    turned, _ = reference.apply_multimodal_rotary_pos_emb(query, query, *angles, sections, unsqueeze_dim=2)

    patch_angles = tower.rot_pos_emb(torch.from_numpy(grids))
    doubled = torch.cat([patch_angles, patch_angles], -1)
    patch = random_steps(rng, *doubled[:, None].shape)
    turned_patch, _ = reference.apply_rotary_pos_emb_vision(patch, patch, doubled.cos(), doubled.sin())
    found = {"query": query, "turned_query": turned, "patch": patch, "turned_patch": turned_patch}
    return {f"rotary/{key}": tensor.numpy() for key, tensor in found.items()}


def random_steps(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    """Random numbers of size 1 in steps that keep the file small."""
    return torch.from_numpy((rng.integers(-16, 17, shape) / 8).astype(np.float32))


def published_frequencies() -> Batch:
    """The radians a step of position that the published checkpoints' pairs turn, in the decoder and in the tower."""
    text = reference.Qwen2VLTextConfig(hidden_size=1536, num_attention_heads=12, rope_theta=1e6)
    tower = reference.VisionRotaryEmbedding(1280 // 16 // 2)
    return {"decoder": reference.Qwen2VLRotaryEmbedding(text).inv_freq.numpy(), "vision": tower.inv_freq.numpy()}


def gradients(model: Model, batch: Batch) -> Batch:
    """The loss's gradient of every parameter, by published name and shape."""
    model(**tensors_of(batch)).loss.backward()
    found = {published_name(key): parameter.grad.numpy().copy() for key, parameter in model.named_parameters()}
    model.zero_grad()
    return found


def published_name(key: str) -> str:
    """What the published files call the parameter `key`."""
    return key.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


def training(model: Model, batches: list[Batch]) -> Batch:
    """Losses of a few AdamW steps over `batches` in turn, and what they changed in every parameter; ends the model.

    The changes are kept in half precision, within 1/2000 of themselves: what they were cannot be compressed.
    """
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    betas = (OPTIMIZER["beta1"], OPTIMIZER["beta2"])
    decay = {"eps": OPTIMIZER["eps"], "weight_decay": OPTIMIZER["weight_decay"]}
    optimizer = torch.optim.AdamW(model.parameters(), OPTIMIZER["lr"], betas, **decay)
    losses = []
    for step in range(STEPS):
        loss = model(**tensors_of(batches[step % len(batches)], model.dtype)).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    changes = {key: (parameter.detach() - before[key]).numpy() for key, parameter in model.named_parameters()}
    return {
        **{f"training/{key}": np.array(value) for key, value in OPTIMIZER.items()},
        "training/losses": np.array(losses),
        **{f"training/change/{published_name(key)}": change.astype(np.float16) for key, change in changes.items()},
    }


def greedy(model: Model, batch: Batch) -> Batch:
    """Tokens that the cache and the likeliest choice give, and the logits each was chosen from.

    Raises:
        SystemExit: a choice was so close that noise could turn it, or the tokens repeat themselves.
    """
    tensors = tensors_of({key: value for key, value in batch.items() if key != "labels"})
    output = model.generate(
        **tensors,
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        eos_token_id=None,
        pad_token_id=PAD,
        output_logits=True,
        return_dict_in_generate=True,
    )
    tokens = output.sequences[:, tensors["input_ids"].shape[1] :].numpy()
    logits = torch.stack(output.logits, dim=1)
    best, second = logits.topk(2).values.unbind(-1)
    if (best - second).min() < 1e-3 or min(len(set(row)) for row in tokens.tolist()) < NEW_TOKENS // 2:
        raise SystemExit("the greedy tokens are a close call or repeat themselves: choose another seed")
    return {"greedy/tokens": tokens, "greedy/logits": logits.numpy()}
