"""How long loading a checkpoint takes, and its peak of memory over what stays: weights of the dtype asked for, codes.

Writes a random Qwen2-VL of the 2B shape (2.2 billion parameters, 4.4 GB of bfloat16 in shards of at most 1 GB) into a
temporary folder, and loads it in a fresh process for each row. The peak is the kernel's (VmHWM), counted from what
Python and Paddle hold before the model is built, 0.55 GB; `--quantize` rounds the linear layers of decoder and tower
while they are read, `--stored` has those of the decoder in the files as GPTQ, AWQ, bitsandbytes or compressed-tensors
lay them out.

Two cores, one thread; at `--scale 0.25` but for the first two rows:

    stored             quantize dtype          stays  seconds       peak  ratio
    plain              none     float32      8.84 GB     19.0    8.84 GB  1.001
    plain              none     bfloat16     4.42 GB     11.0    4.42 GB  1.001
    plain              nf4      float32      1.23 GB      6.6    1.26 GB  1.022
    plain              int4     float32      1.23 GB      3.4    1.26 GB  1.020
    plain              int8     float32      1.48 GB      3.5    1.50 GB  1.019
    gptq               none     bfloat16     1.04 GB      1.4    1.05 GB  1.013
    awq                none     bfloat16     1.04 GB      2.7    1.08 GB  1.039
    bitsandbytes       none     bfloat16     1.04 GB      3.0    1.06 GB  1.017
    compressed-tensors none     bfloat16     1.03 GB      3.4    1.07 GB  1.038

Example:
    python benchmarks/load_checkpoint.py --dtypes float32 bfloat16
    python benchmarks/load_checkpoint.py --scale 0.25 --quantize nf4 int4 int8
    python benchmarks/load_checkpoint.py --scale 0.25 --dtypes float32 --stored gptq awq bitsandbytes compressed-tensors
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
from typing import Any

import ml_dtypes
import numpy as np
import paddle
from safetensors.numpy import save_file
from sides.measuring import begin_peak, held_mebibytes, peak_mebibytes

from paddlemix.files import write_json
from paddlemix.models.quantized import Quantizing, quantized_layers
from paddlemix.models.qwen2_vl import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from paddlemix.quantization.nf4 import LEVELS
from paddlemix.quantization.rounding import KINDS
from paddlemix.weights.loading import without_initial_values

SHARD_BYTES = 10**9
PLAIN, NONE = "plain", "none"
GROUP, BLOCK = 128, 64
# What config.json says of each layout that the linear layers of the decoder are stored in.
STORED: dict[str, dict[str, Any] | None] = {
    PLAIN: None,
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": GROUP},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm"},
    "bitsandbytes": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "compressed-tensors": {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"all": {"weights": {"num_bits": 4, "group_size": GROUP}}},
    },
}


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of layers (default: 1, the 2B shape)")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], help="into which it is loaded")
    parser.add_argument("--quantize", nargs="+", choices=(NONE, *KINDS), default=[NONE], help="of plain files")
    parser.add_argument("--stored", nargs="+", choices=STORED, default=[PLAIN], help="layouts of the files")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made (default: the system's)")
    parser.add_argument("--load", nargs=3, metavar=("FOLDER", "DTYPE", "QUANTIZE"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Make each checkpoint, load it once for each dtype, print a row for each."""
    args = parse_arguments()
    if args.load:
        print(json.dumps(load(*args.load)))
        return
    titles = f"{'stored':18} {'quantize':8} {'dtype':9} {'stays':>10} {'seconds':>8} {'peak':>10} {'ratio':>6}"
    print(titles, flush=True)
    for stored in args.stored:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            make_checkpoint(Path(folder), args.scale, stored)
            for kind in args.quantize:
                for dtype in args.dtypes:
                    row = json.loads(in_fresh_process(folder, dtype, kind))
                    stays, peak = row["stays"] / 1e9, row["peak"] / 1e9
                    print(
                        f"{stored:18} {kind:8} {dtype:9} {stays:7.2f} GB {row['seconds']:8.1f} {peak:7.2f} GB "
                        f"{peak / stays:6.3f}",
                        flush=True,
                    )


def in_fresh_process(folder: str, dtype: str, kind: str) -> str:
    """Return the last line that this script prints when it loads."""
    command = [sys.executable, __file__, "--load", folder, dtype, kind]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]


def load(folder: str, dtype: str, kind: str) -> dict[str, float]:
    """Measure seconds, peak above what was held before, and the size of what stays, in bytes."""
    paddle.matmul(paddle.ones([512, 512]), paddle.ones([512, 512]))  # the library of products loads 20 MB of itself
    begin_peak()
    before, start = held_mebibytes(), time.perf_counter()
    quantizing = None if kind == NONE else Quantizing(kind, vision=True)
    model = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=dtype, quantizing=quantizing)
    seconds = time.perf_counter() - start
    stays = sum(parameter.size * parameter.element_size() for parameter in model.parameters())
    stays += sum(layer.quantized_bytes for layer in quantized_layers(model).values())
    return {"seconds": seconds, "peak": (peak_mebibytes() - before) * 2**20, "stays": stays}


def make_checkpoint(folder: Path, scale: float, stored: str = PLAIN) -> None:
    """Write config.json, shards and index."""
    config = two_billion(scale)
    quantized = STORED[stored]
    values = {} if quantized is None else {"quantization_config": quantized}
    write_json(folder / "config.json", config.to_published() | values)
    weight_map = {}
    for number, shard in enumerate(shards(config, stored)):
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


def shards(config: Qwen2VLConfig, stored: str) -> Iterator[dict[str, np.ndarray]]:
    """Make random tensors of the published names and shapes, bfloat16 and codes, at most `SHARD_BYTES` at once."""
    with without_initial_values():
        model = Qwen2VLForConditionalGeneration(config)
    layout = model.weight_layout(config)
    numbers = (np.random.default_rng(0).standard_normal(10**6) * 0.02).astype(ml_dtypes.bfloat16)
    shard: dict[str, np.ndarray] = {}
    for name, parameter in model.named_parameters():
        shape = layout.stored_shape(name, list(parameter.shape))
        is_coded = stored != PLAIN and name.startswith("model.layers.") and len(shape) == 2
        tensors = codes(name.removesuffix(".weight"), shape, stored) if is_coded else {name: np.resize(numbers, shape)}
        if shard and sum(one.nbytes for one in (*shard.values(), *tensors.values())) > SHARD_BYTES:
            yield shard
            shard = {}
        shard |= tensors
    yield shard


def codes(layer: str, shape: list[int], stored: str) -> dict[str, np.ndarray]:
    """Make the tensors of a layer's random codes."""
    outputs, inputs = shape
    groups, size = inputs // GROUP, outputs * inputs
    half = np.float16
    if stored == "gptq":
        parts = {"qweight": random_words(inputs // 8, outputs), "qzeros": random_words(groups, outputs // 8)}
        parts |= {"scales": np.full([groups, outputs], 0.01, half), "g_idx": np.arange(inputs, dtype=np.int32) // GROUP}
    elif stored == "awq":
        parts = {"qweight": random_words(inputs, outputs // 8), "qzeros": random_words(groups, outputs // 8)}
        parts |= {"scales": np.full([groups, outputs], 0.01, half)}
    elif stored == "compressed-tensors":
        parts = {"weight_packed": random_words(outputs, inputs // 8), "weight_shape": np.array(shape)}
        parts |= {"weight_scale": np.full([outputs, groups], 0.01, half)}
    else:
        state = json.dumps({"quant_type": "nf4", "blocksize": BLOCK, "dtype": "bfloat16", "shape": shape})
        parts = {"weight": random_words(size // 8, 1).view(np.uint8).reshape(-1, 1), "weight.quant_map": LEVELS}
        parts |= {"weight.absmax": np.full([size // BLOCK], 0.05, np.float32)}
        parts |= {"weight.quant_state.bitsandbytes__nf4": np.frombuffer(state.encode(), np.uint8)}
    return {f"{layer}.{part}": array for part, array in parts.items()}


def random_words(*shape: int) -> np.ndarray:
    """Make random words of 32 bits."""
    return np.random.default_rng(0).integers(-(2**31), 2**31, shape, np.int32)


if __name__ == "__main__":
    main()
