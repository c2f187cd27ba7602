"""Merges an adapter into its base: writes a model that needs neither.

Weights are read, merged and written one by one; the base's other files are copied. Then base with adapter and the
merged model answer the same probe, one after the other, each loaded whole in float32. All of it is done on the CPU
unless told otherwise: a card that trains adapters of a model in bfloat16 seldom holds it in float32, and reading it
takes longer than the probe. Where there is no room for it, the probe is left out and that is said.

Example:
    python paddlemix/tools/merge_lora_params.py --model_name_or_path Qwen/Qwen2-VL-2B-Instruct \\
        --lora_path checkpoints/adapter --merge_model_path checkpoints/merged
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import paddle
from tqdm import tqdm

from paddlemix._environment import gpu_is_usable
from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.files import new_folder
from paddlemix.foreign.explain import explain
from paddlemix.peft.folders import adapter_folder, find_folders, warn_of_another_base
from paddlemix.peft.merge import Merge
from paddlemix.peft.merging.adapted import AdaptedWeights
from paddlemix.peft.probe import logits_of, memory_free, memory_needed, probe_inputs, whole_float32
from paddlemix.tools.report_errors import report_errors
from paddlemix.weights.files import stored_tensors

# Shares of the largest logit. Float32 sums in another order differ by 1e-6; half precision rounds each merged weight,
# by 2**-9 (bfloat16), and deep models add that up.
TOLERANCES = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.1}


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = "the adapter's base: a model's folder, or owner/name on the hub (default: what the adapter names)"
    parser.add_argument("--model_name_or_path", help=words)
    parser.add_argument("--lora_path", required=True, help="the adapter's folder")
    parser.add_argument("--merge_model_path", required=True, type=Path, help="the folder to write; must not be there")
    parser.add_argument("--device", choices=["cpu", "gpu"], help="computes (default: the CPU)")
    parser.add_argument("--dtype", choices=list(TOLERANCES), help="what is stored (default: as the base)")
    parser.add_argument("--skip_check", action="store_true", help="do not load the models to compare their logits")
    return parser.parse_args()


def main() -> None:
    """Find base and adapter, merge them, compare, and put the result in its place.

    Raises:
        OSError: there is no such base or adapter, or `--merge_model_path` is there already.
        ValueError: base and adapter do not fit, or the merged model answers otherwise than they do.
    """
    args = parse_arguments()
    paddle.set_device(args.device or "cpu")
    base, adapter = find(args)
    with new_folder(args.merge_model_path.expanduser()) as staged, whole_float32():
        write(base, adapter, staged, args.dtype)
        if not args.skip_check:
            devices = [args.device] if args.device else ["cpu", *(["gpu"] if gpu_is_usable() else [])]
            compare_where_there_is_room(base, adapter, staged, devices)
    print(f"{args.merge_model_path}: the merged model")


def find(args: argparse.Namespace) -> tuple[Path, Path]:
    """Find the local folders of base and adapter.

    Args:
        args: the command line.

    Returns:
        The two of them.

    Raises:
        OSError: one of them is neither there nor can be fetched.
        ValueError: one of them is not what it should be.
    """
    adapter_folder(args.lora_path)  # without a base it would be looked for as a model
    named = (args.model_name_or_path, args.lora_path) if args.model_name_or_path else (args.lora_path,)
    folders = find_folders(*named, weights=True)
    if folders.adapter is None:
        raise ValueError(
            f"`lora_path` {args.lora_path} holds no adapter_config.json; give the folder of an adapter."
            f"{explain(folders.model)}"
        )
    if args.model_name_or_path:
        warn_of_another_base(args.model_name_or_path, folders.adapter)
    return folders.model, folders.adapter


def write(base: Path, adapter: Path, staged: Path, dtype: str | None) -> None:
    """Write weights and all other files.

    Args:
        base: the base's folder.
        adapter: the adapter's folder.
        staged: the folder to fill.
        dtype: what is stored; None stores what the base does.

    Raises:
        ValueError: the adapter is one of another base.
    """
    merge = Merge(AdaptedWeights.of(base, adapter), dtype)
    with tqdm(total=merge.bytes, desc="merging", unit="B", unit_scale=True, disable=None) as bar:
        merge.write_weights(staged, bar.update)
    merge.write_side_files(staged)


def compare_where_there_is_room(base: Path, adapter: Path, merged: Path, devices: Sequence[str]) -> None:
    """Compare on the first device whose memory holds the model, or say that none does.

    Args:
        base: the base's folder.
        adapter: the adapter's folder.
        merged: the merged model's folder.
        devices: "cpu" or "gpu", in the order in which they are asked.

    Raises:
        ValueError: the logits are further apart than rounding explains.
    """
    needed, free = memory_needed(merged), {device: memory_free(device) for device in devices}
    device = next((device for device in devices if free[device] >= needed), None)
    if device is None:
        rest = " and ".join(f"{free[each] / 2**30:.1f} GiB are free on the {each.upper()}" for each in devices)
        print(
            f"the merged model was not compared with base and adapter: in float32 it takes {needed / 2**30:.1f} GiB, "
            f"and {rest}. Its weights are written as they should be; to compare them, merge again on a machine with "
            "more memory."
        )
        return
    paddle.set_device(device)
    compare(base, adapter, merged)


def compare(base: Path, adapter: Path, merged: Path) -> None:
    """Say how far the merged model's logits are from those of base and adapter.

    Args:
        base: the base's folder.
        adapter: the adapter's folder.
        merged: the merged model's folder.

    Raises:
        ValueError: they are further apart than rounding explains.
    """
    inputs = probe_inputs(AutoProcessorMIX.from_pretrained(merged))
    wanted = logits_of(AutoModelMIX.from_pretrained(base, lora_path=adapter), inputs)
    before = logits_of(AutoModelMIX.from_pretrained(base), inputs)
    tokens = min(before.shape[1], wanted.shape[1])  # a vocabulary may have grown
    moved = np.abs(before[:, :tokens] - wanted[:, :tokens]).max()
    found = logits_of(AutoModelMIX.from_pretrained(merged), inputs)
    difference, largest = np.abs(found - wanted).max(), np.abs(wanted).max()
    said = (
        f"logits of a probe: merged and base with adapter differ by {difference:.1e}; the adapter moves them by "
        f"{moved:.1e}, the largest is {largest:.1f}"
    )
    # config.json may say otherwise, or nothing.
    stored = {tensor.dtype for tensor in stored_tensors(merged)}
    tolerance = max(TOLERANCES.get(dtype, TOLERANCES["float32"]) for dtype in stored) * largest
    if not difference <= tolerance:
        raise ValueError(f"{said}; expected at most {tolerance:.1e}. Nothing was written.")
    print(said)


if __name__ == "__main__":
    with report_errors():
        main()
