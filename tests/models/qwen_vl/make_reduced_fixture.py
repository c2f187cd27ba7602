"""Make the part of the original's numbers that is small enough to be kept in this repository, and numbers of our own.

Needs the whole fixture (`shared/fixtures/qwen_vl_tiny`, with weights of 10.7 MB), and paddlemix.

    python tests/models/qwen_vl/make_reduced_fixture.py      # write tests/fixtures/qwen_vl_tiny_reduced/

- model.safetensors: the vision tower's weights, of its blocks the first; `tower.npz`: an image, and what each stage of
  the tower made of it. What the blocks between the first and the last do is left out.
- decoder.npz: one head of the first decoder block with the states that go in, its keys, values and attention weights;
  the rotary frequencies of dynamic NTK.
- own.npz: what our model gives with weights that are drawn anew each time, over everything: logits, losses, gradients,
  steps of training, answers. It is written only while the whole fixture's numbers hold, and stands in for them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from safetensors.numpy import load_file, save_file

import paddlemix  # first: it sets the environment of Paddle's libraries  # noqa: F401
from paddlemix.models.qwen_vl import QWenConfig, QWenLMHeadModel

ROOT = Path(__file__).parents[3]
TARGET = ROOT / "tests" / "fixtures" / "qwen_vl_tiny_reduced"
VISUAL = "transformer.visual."
IMAGE = 3  # of the four that the fixture's tower saw
LIMIT = 3_000_000  # bytes of everything

START, QUERIES, SEED = 60, 4, 7
OWN_CONFIG = {
    "vocab_size": 64,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "kv_channels": 32,
    "intermediate_size": 96,
    "seq_length": 12,
    "visual": {
        "width": 24,
        "layers": 2,
        "heads": 2,
        "mlp_ratio": 2.5,
        "patch_size": 4,
        "image_size": 12,
        "output_dim": 128,
        "n_queries": QUERIES,
        "image_start_id": START,
    },
}


def main() -> None:
    """Write the folder.

    Raises:
        SystemExit: the whole fixture is missing, its numbers do not hold, or the result is too large.
    """
    folders = (parent / "shared" / "fixtures" / "qwen_vl_tiny" for parent in ROOT.parents)
    source = next((folder for folder in folders if folder.is_dir()), None)
    if source is None:
        raise SystemExit("the whole fixture is in no folder shared/fixtures beside this repository")
    with np.load(source / "fixture.npz") as stored:
        arrays = dict(stored)
    check(source, arrays)
    TARGET.mkdir(exist_ok=True)
    weights = load_file(source / "model.safetensors")
    save_file(tower_weights(weights), TARGET / "model.safetensors")
    (TARGET / "model.safetensors").chmod(0o644)
    values = json.loads((source / "config.json").read_text("utf-8"))
    values["visual"]["layers"] = 1
    (TARGET / "config.json").write_text(json.dumps(values, indent=1) + "\n", "utf-8")
    np.savez_compressed(TARGET / "tower.npz", **tower_numbers(arrays))
    np.savez_compressed(TARGET / "decoder.npz", **decoder_numbers(arrays, weights))
    np.savez_compressed(TARGET / "own.npz", **own_numbers())
    size = sum(file.stat().st_size for file in TARGET.iterdir())
    if size > LIMIT:
        raise SystemExit(f"{size} bytes, which are more than {LIMIT}")


def check(source: Path, arrays: dict[str, np.ndarray]) -> None:
    """Compare logits, losses and gradients with the whole fixture's."""
    model = QWenLMHeadModel.from_pretrained(source)
    pixels = paddle.to_tensor(arrays["vision/pixel_values"][1:3])  # b.png and c.png
    ids, labels = (paddle.to_tensor(arrays[f"loss_image_batch/{key}"]) for key in ("input_ids", "labels"))
    output = model(ids, labels=labels, pixel_values=pixels)
    output.loss.backward()
    norms = {name: np.linalg.norm(one.grad.numpy()) for name, one in model.named_parameters()}
    found = {"image_batch/logits": output.logits.numpy(), "loss_image_batch/loss_eval": output.loss.numpy()}
    found["loss_image_batch/grad_norms"] = [norms[name] for name in arrays["loss_image_batch/grad_names"]]
    wrong = [key for key, one in found.items() if not np.allclose(one, arrays[key], rtol=1e-5, atol=1e-4)]
    if wrong:
        raise SystemExit(f"the whole fixture's numbers do not hold: {', '.join(wrong)}; mend that first")


def tower_weights(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tower's, without the blocks behind the first."""
    left_out = tuple(f"{VISUAL}transformer.resblocks.{index}." for index in (1, 2))
    return {name: one for name, one in weights.items() if name.startswith(VISUAL) and not name.startswith(left_out)}


def tower_numbers(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One image and its stages, [1, ...] each; `ln_q` and the interpolated tables are the same for all images."""
    found = {key.removeprefix("vision/"): one for key, one in arrays.items() if key.startswith("vision/")}
    shared = ("ln_q", "positional_embedding_interp", "resampler_pos_interp")
    cut = {name: found[name] for name in shared}
    for name in found.keys() - {*shared, "block_1"}:
        # The original's blocks have the patches first.
        cut[name] = (found[name].swapaxes(0, 1) if name.startswith("block") else found[name])[IMAGE : IMAGE + 1]
    return cut


def decoder_numbers(arrays: dict[str, np.ndarray], weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The first head of the first block for the first text, and the rotary frequencies of each length."""
    prefix, size = "transformer.h.0.", 64
    thirds = [weights[f"{prefix}attn.c_attn.{what}"].reshape(3, 256, -1)[:, :size] for what in ("weight", "bias")]
    found = {"c_attn_weight": thirds[0], "c_attn_bias": thirds[1][..., 0], "ln_1": weights[f"{prefix}ln_1.weight"]}
    found |= {"hidden_0": arrays["text/hidden_0"][0], "attn": arrays["text/attn_0"][0, 0]}
    found |= {"past_k": arrays["text/past_k_0"][0, :, 0], "past_v": arrays["text/past_v_0"][0, :, 0]}
    return found | {key.replace("/", "_"): one for key, one in arrays.items() if key.startswith("long/inv_freq")}


def own_model() -> QWenLMHeadModel:
    """A small model whose weights are drawn by a generator that never changes; no bias is zero and no norm is one."""
    model, draw = QWenLMHeadModel(QWenConfig(**OWN_CONFIG)).eval(), np.random.RandomState(SEED)
    for name, parameter in sorted(model.named_parameters()):
        is_scale = parameter.ndim == 1 and name.endswith("weight")
        scale = 0.3 if parameter.ndim == 1 else 1.2 * parameter.shape[0] ** -0.5
        parameter.set_value((draw.standard_normal(parameter.shape) * scale + float(is_scale)).astype(np.float32))
    return model


def own_batches() -> dict[str, dict[str, np.ndarray]]:
    """Texts within and beyond the trained length, with padding on the left, and with three images."""
    draw = np.random.RandomState(SEED + 1)
    long, short = draw.randint(1, START, (2, 20)), draw.randint(1, START, (2, 10))
    mask = np.ones_like(short)
    mask[0, :4] = 0
    span = [START, *[0] * QUERIES, START + 1]
    shown = np.array([[*span, 5, *span, 6, 7], [8, 9, *span, *short[0, :7]]])
    pixels = draw.standard_normal((3, 3, 12, 12)).astype(np.float32)
    return {
        "long": {"input_ids": long},
        "short": {"input_ids": short},
        "left": {"input_ids": short, "attention_mask": mask},
        "shown": {"input_ids": shown, "pixel_values": pixels},
    }


def own_numbers() -> dict[str, np.ndarray]:
    """What our model gives, `<batch>/<what>`."""
    found: dict[str, np.ndarray] = {}
    for name, batch in own_batches().items():
        found |= {f"{name}/{key}": one for key, one in _numbers(own_model(), batch).items()}
    return found


def _numbers(model: QWenLMHeadModel, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    inputs: dict[str, Any] = {key: paddle.to_tensor(array) for key, array in batch.items()}
    with paddle.no_grad():
        found = {"logits": model(**inputs).logits.numpy()}
    for what, settings in (("greedy", {}), ("beams", {"num_beams": 3}), ("stopped", {"stop_words_ids": [[2], [3, 4]]})):
        tokens = model.generate(**inputs, max_new_tokens=8, eos_token_id=1, do_sample=False, **settings)
        found[what] = tokens[:, inputs["input_ids"].shape[1] :].numpy()
    return {**found, **_training(model.train(), inputs)}


def _training(model: QWenLMHeadModel, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
    optimizer = paddle.optimizer.AdamW(1e-3, weight_decay=0.1, parameters=model.parameters())
    losses, norms = [], []
    for _ in range(3):
        loss = model(**inputs, labels=inputs["input_ids"]).loss
        loss.backward()
        norms = norms or [float(one.grad.norm()) for _, one in sorted(model.named_parameters())]
        optimizer.step()
        optimizer.clear_grad()
        losses.append(float(loss))
    return {"losses": np.array(losses), "gradient_norms": np.array(norms)}


if __name__ == "__main__":
    sys.exit(main())
