"""Make the files that Qwen2-VL and its kin are compared with: tiny random models of the reference implementation.

Needs torch 2.13.0 (CPU) and transformers 4.57.6, in an environment of its own; the tests need neither.

    python tests/models/make_reference.py                               # write tests/fixtures/qwen2_vl_tiny/ and kin
    python tests/models/make_reference.py --families qwen2_5_vl_tiny    # write that folder alone
    python tests/models/make_reference.py --check FOLDER qwen2_vl_tiny/tied

The last one says whether FOLDER, saved by paddlemix, gives the logits that are stored.

Each variant's folder is what `save_pretrained` writes, and `reference.npz` beside it, whose arrays are named
`<batch>/<what>`: inputs, positions, logits and loss of every batch; `vision/...` of the tower alone; `decoder/...` of
the batch `video`; `rotary/...` of both; `gradient/<published name>` and `greedy/...` of the batch `mixed_left`.
`training.npz` holds a few AdamW steps over `mixed_left` and `mixed_right` in turn. `positions.npz` holds positions of
random rows, and `frequencies.npz` the published Qwen2-VL checkpoints' rotary frequencies, which its kin share.

Positions of Qwen2.5-VL are those of the reference implementation without its fault: see `without_the_cast`.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import reference_numbers as numbers
import torch
from reference_batches import END, IMAGE, PAD, START, VIDEO, Batch, inputs_of, make_batch, random_row
from reference_families import FAMILIES, FIXTURES, QWEN2_5_VL, QWEN2_VL, VISION, ReferenceFamily

MIXED_BATCH, STAGES_BATCH, TRAINING_BATCHES = "mixed_left", "video", ["mixed_left", "mixed_right"]
RANDOM_ROWS = 60
LAYOUT = ["input_ids", "attention_mask", "image_grid_thw", "video_grid_thw", "second_per_grid_ts"]


def main() -> None:
    """Make the files, or check a folder."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--check", nargs=2, metavar=("FOLDER", "FAMILY/VARIANT"))
    arguments = parser.parse_args()
    check_seconds()
    if arguments.check:
        check(Path(arguments.check[0]), *arguments.check[1].split("/"))
        return
    for family in map(FAMILIES.get, arguments.families):
        for name in family.variants:
            make(family, name)
        np.savez_compressed(family.root / "positions.npz", **laid_out(family))
    np.savez_compressed(QWEN2_VL.root / "frequencies.npz", **numbers.published_frequencies())


def check_seconds() -> None:
    """Make sure that the reference's positions are in seconds: patches of 0.5 and 1.5 s, 2 steps a second.

    Raises:
        SystemExit: they are not, as those of 4.57.6 are not: 6, 6, 6 and 6, 8, 10.
    """
    model = build(QWEN2_5_VL, "tied")
    for seconds, expected in ((0.5, [6, 7, 8]), (1.5, [6, 9, 12])):
        batch = make_batch([[5, seconds, (3, 2, 2), 1]], "right", np.random.default_rng(0))
        found = numbers.positions(model, batch)["position_ids"][0, 0]
        if found[6:9].tolist() != expected or found[9] != expected[-1] + 1:
            raise SystemExit(f"the reference lays patches of {seconds} s out at {found.tolist()}")


def make(family: ReferenceFamily, name: str) -> None:
    """Write one variant's folder."""
    model = build(family, name)
    folder = family.root / name
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "model.safetensors").chmod(0o644)
    arrays = all_numbers(family, model, np.random.default_rng(family.variants[name]["seed"]))
    np.savez_compressed(folder / "reference.npz", **arrays)
    tell(f"{family.folder}/{name}", model, arrays, list(family.batches))
    batches = [inputs_of(arrays, batch_name) for batch_name in TRAINING_BATCHES]
    np.savez_compressed(folder / "training.npz", **numbers.training(model, batches))


def all_numbers(family: ReferenceFamily, model: numbers.Model, rng: np.random.Generator) -> Batch:
    """What `reference.npz` holds."""
    arrays = {}
    for batch_name, (rows, side) in family.batches.items():
        batch = make_batch(rows, side, rng)
        arrays |= {f"{batch_name}/{key}": value for key, value in (batch | numbers.run(model, batch)).items()}
    batch = inputs_of(arrays, MIXED_BATCH)
    arrays |= numbers.vision_stages(model, rng, family.vision_grids, with_output=family.sorts_patches)
    arrays |= numbers.decoder_stages(model, inputs_of(arrays, STAGES_BATCH))
    arrays |= numbers.rotary(model, arrays[f"{STAGES_BATCH}/position_ids"], arrays["vision/grid_thw"])
    arrays |= {f"gradient/{key}": value for key, value in numbers.gradients(model, batch).items()}
    return arrays | numbers.greedy(model, batch)


def tell(name: str, model: numbers.Model, arrays: Batch, batches: list[str]) -> None:
    """Log how large the logits are and how much of them is noise."""
    logits = {batch_name: arrays[f"{batch_name}/logits"] for batch_name in batches}
    largest = max(np.abs(values).max() for values in logits.values())
    noise = max(numbers.float64_noise(model, inputs_of(arrays, key), values) for key, values in logits.items())
    logging.info("%s: logits up to %.1f, this reference's own float32 noise %.1e", name, largest, noise)
    logging.info("%s: greedy tokens\n%s", name, arrays["greedy/tokens"])


def laid_out(family: ReferenceFamily) -> Batch:
    """Tokens, grids and positions of random rows, `left/<what>` and `right/<what>` by the side of the padding."""
    rng = np.random.default_rng(0)
    model = build(family, "untied")
    arrays = {}
    for side in ("left", "right"):
        batch = make_batch([random_row(rng, family.seconds) for _ in range(RANDOM_ROWS)], side, rng)
        layout = {key: batch[key] for key in LAYOUT if key in batch}
        arrays |= {f"{side}/{key}": value for key, value in (layout | numbers.positions(model, batch)).items()}
    return arrays


def build(family: ReferenceFamily, name: str) -> numbers.Model:
    """A model in which no bias is zero and no norm is one, so that each of them matters."""
    variant = family.variants[name]
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
    vision = {**VISION, **variant["vision"], family.output_key: text["hidden_size"]}
    ids = {"vision_start_token_id": START, "vision_end_token_id": END}
    config = family.config_class(
        text_config=text,
        vision_config=vision,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        tie_word_embeddings=variant["tied"],
        attn_implementation="eager",
        **ids,
    )
    model = family.model_class(config).eval()
    torch.manual_seed(variant["seed"])
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            is_scale = parameter.ndim == 1 and key.endswith("weight")
            scale = 0.3 if parameter.ndim == 1 else 1.2 * parameter[0].numel() ** -0.5
            parameter.copy_(torch.randn_like(parameter) * scale + float(is_scale))
        # The head sees the last norm's output; this makes logits of about the size that real models give.
        model.model.language_model.norm.weight.mul_(2)
    return model


def check(folder: Path, family_folder: str, variant: str) -> None:
    """Compare what transformers gives for `folder` with the stored logits.

    Raises:
        SystemExit: a tensor is missing, unexpected or wrong-shaped, or the logits differ.
    """
    model, info = FAMILIES[family_folder].model_class.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", dtype=torch.float32
    )
    if any(info.values()):
        raise SystemExit(f"{folder}: {info}")
    with np.load(FIXTURES / family_folder / variant / "reference.npz") as stored:
        arrays = dict(stored)
    for batch_name in FAMILIES[family_folder].batches:
        batch = inputs_of(arrays, batch_name)
        difference = np.abs(numbers.run(model.eval(), batch)["logits"] - arrays[f"{batch_name}/logits"]).max()
        logging.info("%s: logits differ by %.1e", batch_name, difference)
        if difference > 5e-5:
            raise SystemExit(f"{folder}: the logits of {batch_name} differ by {difference}.")


if __name__ == "__main__":
    main()
