"""How long loading a checkpoint takes, and its peak of memory over the size of the weights in the dtype asked for.

Writes a random Qwen2-VL of the 2B shape (2.2 billion parameters, 4.4 GB of bfloat16 in shards of at most 1 GB) into a
temporary folder, and loads it in a fresh process for each dtype. The peak is the kernel's (VmHWM), Python and Paddle
themselves included: 0.55 GB before the model is built. Two cores, both busy with something else:

    dtype         weights  seconds       peak  ratio
    float32       8.84 GB     44.8    9.41 GB  1.065
    bfloat16      4.42 GB     13.0    4.99 GB  1.130

A quarter of the layers took 4.4 s into float32; with initial random values and whole tensors in float32 on the way it
was 73 s and 2.75 times the weights.

Example:
    python benchmarks/load_checkpoint.py --dtypes float32 bfloat16
    python benchmarks/load_checkpoint.py --scale 0.1 --folder /tmp
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file
from sides.measuring import peak_mebibytes

from paddlemix.files import write_json
from paddlemix.models.qwen2_vl import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from paddlemix.weights.loading import without_initial_values

SHARD_BYTES = 10**9


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of layers (default: 1, the 2B shape)")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], help="into which it is loaded")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made (default: the system's)")
    parser.add_argument("--load", nargs=2, metavar=("FOLDER", "DTYPE"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Make the checkpoint, load it once for each dtype, print a row for each."""
    args = parse_arguments()
    if args.load:
        print(json.dumps(load(*args.load)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        make_checkpoint(Path(folder), args.scale)
        print(f"{'dtype':10} {'weights':>10} {'seconds':>8} {'peak':>10} {'ratio':>6}", flush=True)
        for dtype in args.dtypes:
            row = json.loads(in_fresh_process(folder, dtype))
            weights, peak = row["weights"] / 1e9, row["peak"] / 1e9
            print(
                f"{dtype:10} {weights:7.2f} GB {row['seconds']:8.1f} {peak:7.2f} GB {peak / weights:6.3f}", flush=True
            )


def in_fresh_process(folder: str, dtype: str) -> str:
    """Return the last line that this script prints when it loads."""
    command = [sys.executable, __file__, "--load", folder, dtype]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]


def load(folder: str, dtype: str) -> dict[str, float]:
    """Measure seconds, peak and size of the weights in bytes."""
    start = time.perf_counter()
    model = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=dtype)
    seconds = time.perf_counter() - start
    weights = sum(parameter.size * parameter.element_size() for parameter in model.parameters())
    return {"seconds": seconds, "peak": peak_mebibytes() * 2**20, "weights": weights}


def make_checkpoint(folder: Path, scale: float) -> None:
    """Write config.json, shards and index."""
    config = two_billion(scale)
    write_json(folder / "config.json", config.to_published())
    weight_map = {}
    for number, shard in enumerate(shards(config)):
        file = f"model-{number:05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def two_billion(scale: float) -> Qwen2VLConfig:
    """Make the shape of Qwen2-VL-2B with `scale` times its layers."""
    return Qwen2VLConfig(
        vocab_size=151936,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=max(1, round(28 * scale)),
        num_attention_heads=12,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        vision_config={"depth": max(1, round(32 * scale)), "hidden_size": 1536},
    )


def shards(config: Qwen2VLConfig) -> Iterator[dict[str, np.ndarray]]:
    """Make random bfloat16 tensors of the published names and shapes, at most `SHARD_BYTES` at once."""
    with without_initial_values():
        model = Qwen2VLForConditionalGeneration(config)
    layout = model.weight_layout(config)
    numbers = (np.random.default_rng(0).standard_normal(10**6) * 0.02).astype(ml_dtypes.bfloat16)
    shard: dict[str, np.ndarray] = {}
    for name, parameter in model.named_parameters():
        tensor = np.resize(numbers, layout.stored_shape(name, list(parameter.shape)))
        if shard and sum(one.nbytes for one in shard.values()) + tensor.nbytes > SHARD_BYTES:
            yield shard
            shard = {}
        shard[name] = tensor
    yield shard


if __name__ == "__main__":
    main()
