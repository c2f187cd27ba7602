"""Make the files that Qwen2-VL is compared with: tiny random models of the reference implementation and their numbers.

Needs torch 2.13.0 (CPU) and transformers 4.57.6, in an environment of its own; the tests need neither.

    python tests/models/make_reference.py                        # write tests/fixtures/qwen2_vl_tiny/<variant>/
    python tests/models/make_reference.py --check FOLDER tied    # FOLDER, saved by paddlemix, gives the same logits

Each folder is what `save_pretrained` writes, and `reference.npz` beside it, whose arrays are named `<batch>/<what>`:
inputs, positions, logits and loss of every batch; `vision/...` of the tower alone; `gradient/<published name>` and
`greedy/tokens` of the batch `mixed_left`.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

ROOT = Path(__file__).parents[1] / "fixtures" / "qwen2_vl_tiny"
INPUTS = ["input_ids", "labels", "attention_mask"]
INPUTS += ["pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw"]
GREEDY_BATCH, GREEDY_TOKENS = "mixed_left", 12
START, END, IMAGE, VIDEO, PAD, TEXT_TOKENS = 110, 111, 112, 113, 0, 100

VISION = {"depth": 2, "in_channels": 3, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
VARIANTS = {
    "tied": {
        "text": {"hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2},
        "sections": [1, 2, 3],
        "vision": {"embed_dim": 32, "num_heads": 2, "mlp_ratio": 2},
        "tied": True,
        "seed": 30,
    },
    "untied": {
        "text": {"hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 2, "num_key_value_heads": 2},
        "sections": [2, 3, 3],
        "vision": {"embed_dim": 16, "num_heads": 2, "mlp_ratio": 4},
        "tied": False,
        "seed": 48,
    },
}

# A number is so many text tokens, a grid a picture, a grid behind "video" a video.
PICTURE_A, PICTURE_B, PICTURE_C, CLIP = (1, 4, 6), (1, 2, 2), (1, 6, 4), (3, 4, 2)
BATCHES = {
    "text": ([[9], [9]], "right"),
    "text_left": ([[4], [9]], "left"),
    "text_right": ([[9], [5]], "right"),
    "one_picture": ([[3, PICTURE_A, 5]], "right"),
    "several_pictures": ([[2, PICTURE_B, 4, PICTURE_A, 1, PICTURE_C, 3]], "right"),
    "adjacent_pictures": ([[3, PICTURE_C, PICTURE_A, PICTURE_B, 4]], "right"),
    "picture_at_end": ([[5, PICTURE_A, "cut"]], "right"),
    "video": ([[2, "video", CLIP, 4]], "right"),
    "mixed_left": ([[6], [2, PICTURE_A, 3, PICTURE_C, 5], [1, "video", CLIP, 2, PICTURE_B, 4]], "left"),
    "mixed_right": ([[2, PICTURE_C, "video", CLIP, 5], [7], [3, PICTURE_B, PICTURE_A, 2]], "right"),
}


def main() -> None:
    """Make the files, or check a folder."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", nargs=2, metavar=("FOLDER", "VARIANT"))
    arguments = parser.parse_args()
    if arguments.check:
        check(Path(arguments.check[0]), arguments.check[1])
        return
    for name in VARIANTS:
        make(name)


def make(name: str) -> None:
    """Write one variant's folder."""
    model = build(name)
    rng = np.random.default_rng(VARIANTS[name]["seed"])
    arrays = {}
    for batch_name, (rows, side) in BATCHES.items():
        batch = make_batch(rows, side, rng)
        arrays |= {f"{batch_name}/{key}": value for key, value in (batch | run(model, batch)).items()}
    batch = inputs_of(arrays, GREEDY_BATCH)
    arrays |= vision_stages(model, rng)
    arrays |= {f"gradient/{key}": value for key, value in gradients(model, batch).items()}
    arrays["greedy/tokens"] = greedy(model, batch)
    folder = ROOT / name
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "model.safetensors").chmod(0o644)
    np.savez_compressed(folder / "reference.npz", **arrays)
    largest = max(np.abs(arrays[f"{batch_name}/logits"]).max() for batch_name in BATCHES)
    noise = max(float64_noise(model, inputs_of(arrays, batch_name), arrays, batch_name) for batch_name in BATCHES)
    logging.info("%s: logits up to %.1f, this reference's own float32 noise %.1e", name, largest, noise)
    logging.info("%s: greedy tokens\n%s", name, arrays["greedy/tokens"])


def build(name: str) -> Qwen2VLForConditionalGeneration:
    """A model in which no bias is zero and no norm is one, so that each of them matters."""
    variant = VARIANTS[name]
    text = {
        **variant["text"],
        "vocab_size": 120,
        "num_hidden_layers": 2,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "mrope_section": variant["sections"]},
        "tie_word_embeddings": variant["tied"],
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": PAD,
    }
    vision = {**VISION, **variant["vision"], "hidden_size": text["hidden_size"]}
    ids = {"vision_start_token_id": START, "vision_end_token_id": END}
    config = Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        tie_word_embeddings=variant["tied"],
        attn_implementation="eager",
        **ids,
    )
    model = Qwen2VLForConditionalGeneration(config).eval()
    torch.manual_seed(variant["seed"])
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            is_scale = parameter.ndim == 1 and key.endswith("weight")
            scale = 0.3 if parameter.ndim == 1 else 1.2 * parameter[0].numel() ** -0.5
            parameter.copy_(torch.randn_like(parameter) * scale + float(is_scale))
        # The head sees the last norm's output; this makes logits of about the size that real models give.
        model.model.language_model.norm.weight.mul_(2)
    return model


def make_batch(rows: list[list], side: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random tokens, pixels and labels for a batch laid out like `rows`."""
    made = [make_row(row, rng) for row in rows]
    length = max(len(ids) for ids, _, _ in made)
    batch = {
        "input_ids": np.full((len(made), length), PAD),
        "labels": np.full((len(made), length), -100),
        "attention_mask": np.zeros((len(made), length), dtype=np.int64),
    }
    for index, (ids, _, _) in enumerate(made):
        place = slice(length - len(ids), length) if side == "left" else slice(0, len(ids))
        is_asked = (np.array(ids) < TEXT_TOKENS) & (rng.random(len(ids)) < 0.7)
        batch["input_ids"][index, place] = ids
        batch["attention_mask"][index, place] = 1
        batch["labels"][index, place] = np.where(is_asked, ids, -100)
    grids = [grid for _, grids, _ in made for grid in grids], [grid for _, _, grids in made for grid in grids]
    for pixels, key, chosen in zip(
        ("pixel_values", "pixel_values_videos"), ("image_grid_thw", "video_grid_thw"), grids, strict=True
    ):
        if chosen:
            batch[key] = np.array(chosen)
            batch[pixels] = make_pixels(chosen, rng)
    return batch


def make_row(parts: list, rng: np.random.Generator) -> tuple[list[int], list[tuple], list[tuple]]:
    """Tokens of one row, with the grids of its pictures and of its videos."""
    ids: list[int] = []
    images: list[tuple] = []
    videos: list[tuple] = []
    is_video = False
    for part in parts:
        if part == "video":
            is_video = True
        elif part == "cut":
            del ids[-1]
        elif isinstance(part, int):
            ids += rng.integers(1, TEXT_TOKENS, part).tolist()
        else:
            count = int(np.prod(part)) // 4
            ids += [START, *[VIDEO if is_video else IMAGE] * count, END]
            (videos if is_video else images).append(part)
            is_video = False
    return ids, images, videos


def make_pixels(grids: list[tuple], rng: np.random.Generator) -> np.ndarray:
    """Random patches, in steps that keep the file small."""
    values = VISION["in_channels"] * VISION["temporal_patch_size"] * VISION["patch_size"] ** 2
    patches = sum(int(np.prod(grid)) for grid in grids)
    return (rng.integers(-16, 17, (patches, values)) / 8).astype(np.float32)


def inputs_of(arrays: dict[str, np.ndarray], batch_name: str) -> dict[str, np.ndarray]:
    """A batch's inputs out of all arrays."""
    return {key: arrays[f"{batch_name}/{key}"] for key in INPUTS if f"{batch_name}/{key}" in arrays}


def run(model: Qwen2VLForConditionalGeneration, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Positions, logits and loss."""
    tensors = {key: torch.from_numpy(value) for key, value in batch.items()}
    positions, deltas = model.model.get_rope_index(
        tensors["input_ids"],
        tensors.get("image_grid_thw"),
        tensors.get("video_grid_thw"),
        tensors["attention_mask"],
    )
    with torch.no_grad():
        output = model(**floats_as(tensors, model.dtype), position_ids=positions)
    return {
        "position_ids": positions.numpy(),
        "rope_deltas": deltas.numpy(),
        "logits": output.logits.numpy(),
        "loss": output.loss.numpy(),
    }


def floats_as(tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The same tensors, those of floats in `dtype`."""
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in tensors.items()}


def float64_noise(
    model: Qwen2VLForConditionalGeneration, batch: dict[str, np.ndarray], arrays: dict[str, np.ndarray], batch_name: str
) -> float:
    """How far the logits of tokens lie from what float64 gives."""
    wide = run(model.double(), batch)["logits"]
    model.float()
    return float(np.abs(wide - arrays[f"{batch_name}/logits"])[batch["attention_mask"] == 1].max())


def vision_stages(model: Qwen2VLForConditionalGeneration, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What leaves each part of the vision tower, for two pictures of different shape and a video in one go."""
    tower, grids = model.model.visual, [PICTURE_A, (1, 8, 2), CLIP]
    pixels = make_pixels(grids, rng)
    stages: dict[str, np.ndarray] = {"vision/pixel_values": pixels, "vision/grid_thw": np.array(grids)}
    parts = {"patch_embed": tower.patch_embed, "merger": tower.merger}
    parts |= {f"blocks.{index}": block for index, block in enumerate(tower.blocks)}
    for name, part in parts.items():
        part.register_forward_hook(
            lambda _, __, output, name=name: stages.__setitem__(f"vision/{name}", output.detach().numpy())
        )
    with torch.no_grad():
        tower(torch.from_numpy(pixels), torch.tensor(grids))
    for part in parts.values():
        part._forward_hooks.clear()
    return stages


def gradients(model: Qwen2VLForConditionalGeneration, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The loss's gradient of every parameter, by published name and shape."""
    model(**{key: torch.from_numpy(value) for key, value in batch.items()}).loss.backward()
    found = {published_name(key): parameter.grad.numpy().copy() for key, parameter in model.named_parameters()}
    model.zero_grad()
    return found


def published_name(key: str) -> str:
    """What the published files call the parameter `key`."""
    return key.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


def greedy(model: Qwen2VLForConditionalGeneration, batch: dict[str, np.ndarray]) -> np.ndarray:
    """Tokens that the cache and the likeliest choice give; none was a close call that noise could turn."""
    tensors = {key: torch.from_numpy(value) for key, value in batch.items() if key != "labels"}
    output = model.generate(
        **tensors,
        do_sample=False,
        max_new_tokens=GREEDY_TOKENS,
        eos_token_id=None,
        pad_token_id=PAD,
        output_scores=True,
        return_dict_in_generate=True,
    )
    tokens = output.sequences[:, tensors["input_ids"].shape[1] :].numpy()
    best, second = torch.stack(output.scores).topk(2).values.unbind(-1)
    if (best - second).min() < 1e-3 or min(len(set(row)) for row in tokens.tolist()) < GREEDY_TOKENS // 2:
        raise SystemExit("the greedy tokens are a close call or repeat themselves: choose another seed")
    return tokens


def check(folder: Path, variant: str) -> None:
    """Compare what transformers gives for `folder` with the stored logits.

    Raises:
        SystemExit: a tensor is missing, unexpected or wrong-shaped, or the logits differ.
    """
    model, info = Qwen2VLForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", dtype=torch.float32
    )
    if any(info.values()):
        raise SystemExit(f"{folder}: {info}")
    with np.load(ROOT / variant / "reference.npz") as stored:
        arrays = dict(stored)
    for batch_name in BATCHES:
        batch = inputs_of(arrays, batch_name)
        difference = np.abs(run(model.eval(), batch)["logits"] - arrays[f"{batch_name}/logits"]).max()
        logging.info("%s: logits differ by %.1e", batch_name, difference)
        if difference > 5e-5:
            raise SystemExit(f"{folder}: the logits of {batch_name} differ by {difference}.")


if __name__ == "__main__":
    main()
