"""Make the files that Qwen2-VL is compared with: tiny random models of the reference implementation and their numbers.

Needs torch 2.13.0 (CPU) and transformers 4.57.6, in an environment of its own; the tests need neither.

    python tests/models/make_reference.py                        # write tests/fixtures/qwen2_vl_tiny/
    python tests/models/make_reference.py --check FOLDER tied    # FOLDER, saved by paddlemix, gives the same logits

Each variant's folder is what `save_pretrained` writes, and `reference.npz` beside it, whose arrays are named
`<batch>/<what>`: inputs, positions, logits and loss of every batch; `vision/...` of the tower alone; `decoder/...` of
the batch `video`; `rotary/...` of both; `gradient/<published name>` and `greedy/...` of the batch `mixed_left`.
`training.npz` holds a few AdamW steps over `mixed_left` and `mixed_right` in turn. `positions.npz` holds positions of
random rows, and `frequencies.npz` the published checkpoints' rotary frequencies.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import reference_numbers as numbers
import torch
from reference_batches import BATCHES, END, IMAGE, PAD, START, VIDEO, inputs_of, make_batch, random_row
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

ROOT = Path(__file__).parents[1] / "fixtures" / "qwen2_vl_tiny"
MIXED_BATCH, STAGES_BATCH, TRAINING_BATCHES = "mixed_left", "video", ["mixed_left", "mixed_right"]
RANDOM_ROWS = 60
LAYOUT = ["input_ids", "attention_mask", "image_grid_thw", "video_grid_thw"]

VISION = {"depth": 2, "in_channels": 3, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
VARIANTS = {
    # Grouped query heads.
    "tied": {
        "text": {"hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2},
        "sections": [1, 2, 3],
        "vision": {"embed_dim": 32, "num_heads": 2, "mlp_ratio": 2},
        "tied": True,
        "seed": 30,
    },
    # A key head for every query head.
    "untied": {
        "text": {"hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 2, "num_key_value_heads": 2},
        "sections": [2, 3, 3],
        "vision": {"embed_dim": 16, "num_heads": 2, "mlp_ratio": 4},
        "tied": False,
        "seed": 48,
    },
    # One key head for all query heads; another depth, rotary base and epsilon than the published ones.
    "one_key_head": {
        "text": {
            "hidden_size": 24,
            "intermediate_size": 32,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "num_hidden_layers": 3,
            "rope_theta": 1e4,
            "rms_norm_eps": 1e-2,
        },
        "sections": [1, 1, 1],
        "vision": {"embed_dim": 16, "num_heads": 4, "mlp_ratio": 2},
        "tied": True,
        "seed": 3,
    },
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
    np.savez_compressed(ROOT / "positions.npz", **laid_out(build("tied")))
    np.savez_compressed(ROOT / "frequencies.npz", **numbers.published_frequencies())


def make(name: str) -> None:
    """Write one variant's folder."""
    model = build(name)
    folder = ROOT / name
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "model.safetensors").chmod(0o644)
    arrays = all_numbers(model, np.random.default_rng(VARIANTS[name]["seed"]))
    np.savez_compressed(folder / "reference.npz", **arrays)
    tell(name, model, arrays)
    batches = [inputs_of(arrays, batch_name) for batch_name in TRAINING_BATCHES]
    np.savez_compressed(folder / "training.npz", **numbers.training(model, batches))


def all_numbers(model: Qwen2VLForConditionalGeneration, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What `reference.npz` holds."""
    arrays = {}
    for batch_name, (rows, side) in BATCHES.items():
        batch = make_batch(rows, side, rng)
        arrays |= {f"{batch_name}/{key}": value for key, value in (batch | numbers.run(model, batch)).items()}
    batch = inputs_of(arrays, MIXED_BATCH)
    arrays |= numbers.vision_stages(model, rng) | numbers.decoder_stages(model, inputs_of(arrays, STAGES_BATCH))
    arrays |= numbers.rotary(model, arrays[f"{STAGES_BATCH}/position_ids"], arrays["vision/grid_thw"])
    arrays |= {f"gradient/{key}": value for key, value in numbers.gradients(model, batch).items()}
    return arrays | numbers.greedy(model, batch)


def tell(name: str, model: Qwen2VLForConditionalGeneration, arrays: dict[str, np.ndarray]) -> None:
    """Log how large the logits are and how much of them is noise."""
    logits = {batch_name: arrays[f"{batch_name}/logits"] for batch_name in BATCHES}
    largest = max(np.abs(values).max() for values in logits.values())
    noise = max(numbers.float64_noise(model, inputs_of(arrays, key), values) for key, values in logits.items())
    logging.info("%s: logits up to %.1f, this reference's own float32 noise %.1e", name, largest, noise)
    logging.info("%s: greedy tokens\n%s", name, arrays["greedy/tokens"])


def laid_out(model: Qwen2VLForConditionalGeneration) -> dict[str, np.ndarray]:
    """Tokens, grids and positions of random rows, `left/<what>` and `right/<what>` by the side of the padding."""
    rng = np.random.default_rng(0)
    arrays = {}
    for side in ("left", "right"):
        batch = make_batch([random_row(rng) for _ in range(RANDOM_ROWS)], side, rng)
        layout = {key: batch[key] for key in LAYOUT}
        arrays |= {f"{side}/{key}": value for key, value in (layout | numbers.positions(model, batch)).items()}
    return arrays


def build(name: str) -> Qwen2VLForConditionalGeneration:
    """A model in which no bias is zero and no norm is one, so that each of them matters."""
    variant = VARIANTS[name]
    text = {
        "vocab_size": 120,
        "num_hidden_layers": 2,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        **variant["text"],
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
        difference = np.abs(numbers.run(model.eval(), batch)["logits"] - arrays[f"{batch_name}/logits"]).max()
        logging.info("%s: logits differ by %.1e", batch_name, difference)
        if difference > 5e-5:
            raise SystemExit(f"{folder}: the logits of {batch_name} differ by {difference}.")


if __name__ == "__main__":
    main()
