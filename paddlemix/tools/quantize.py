"""Quantises a model: writes a checkpoint whose language model's linear layers hold 4 or 8 bits a weight.

With records of a fine-tuning config (GPTQ, the default) each layer's weight is rounded for the inputs that it gets from
them, input by input, and what one rounding does the inputs behind it make good; block by block, so that each sees what
the rounded ones before it make of the records. `--method rtn` rounds each number to the nearest and needs no records.
The vision tower, the embeddings and the head stay as they are. The files are those of GPTQ or of AWQ (its layout, not
its scaling by activations), which transformers reads. Where records are given, the loss of others is computed before,
and after from the written files.

Examples:
    python paddlemix/tools/quantize.py --model_name_or_path output/demo/model \\
        --calibration paddlemix/config/demo/qwen2_vl_shapes.json --bits 4 --group_size 64 --output output/demo/int4
    python paddlemix/tools/quantize.py --model_name_or_path Qwen/Qwen2-VL-2B-Instruct --method rtn --format awq \\
        --output checkpoints/qwen2-vl-2b-awq
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from paddlemix.calibration.base import Base, Parts
from paddlemix.calibration.loss import mean_loss
from paddlemix.calibration.records import Calibration, ChosenRecords, choose_records
from paddlemix.calibration.walk import quantize_along
from paddlemix.configuration.file import load_config
from paddlemix.files import new_folder
from paddlemix.models.registry import find_family
from paddlemix.models.vision_language import VisionLanguageModel
from paddlemix.peft.folders import find_folders
from paddlemix.processors.tokens.rows import check_rows
from paddlemix.quantization.blocks import Blocks
from paddlemix.quantization.calibrated.recipe import FORMATS, Recipe
from paddlemix.tools.precision import usable_dtype
from paddlemix.tools.report_errors import report_errors
from paddlemix.weights.dtypes import PARAMETER_DTYPES

METHODS = ("gptq", "rtn")
_RECORDS, _DAMPING = 128, 0.1


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model_name_or_path", required=True, help="a model's folder, or owner/name on the hub")
    parser.add_argument("--output", required=True, type=Path, help="the folder to write; must not be there")
    parser.add_argument(
        "--calibration",
        metavar="CONFIG",
        help="a fine-tuning config, whose `dataset.train` is calibrated with; of `dataset.eval` the loss is computed",
    )
    parser.add_argument("--calibration_records", type=int, help=f"how many are taken (default: {_RECORDS})")
    parser.add_argument(
        "--held_out_records", type=int, help=f"of how many others the loss is computed (default: {_RECORDS})"
    )
    parser.add_argument("--method", choices=METHODS, default="gptq", help="gptq or round to nearest (default: gptq)")
    parser.add_argument("--format", choices=FORMATS, default="gptq", help="of the files (default: gptq)")
    parser.add_argument("--bits", type=int, default=4, help="of a weight: 4, or 8 with --format gptq (default: 4)")
    parser.add_argument(
        "--group_size", type=int, default=128, help="inputs that share a scale; -1 for all (default: 128)"
    )
    parser.add_argument(
        "--sym",
        action=argparse.BooleanOptionalAction,
        help="whether the middle code means 0 (default: with --format gptq)",
    )
    parser.add_argument("--desc_act", action="store_true", help="take inputs by their magnitudes; --format gptq alone")
    parser.add_argument(
        "--damp_percent",
        type=float,
        help=f"share of a Hessian's mean diagonal that is added to it (default: {_DAMPING})",
    )
    parser.add_argument(
        "--dtype", choices=PARAMETER_DTYPES, help="of what is not quantised, in the files (default: as the model's)"
    )
    return parser.parse_args()


def main() -> None:
    """Look into model and records, quantise, write, compare, and put the result in its place.

    Raises:
        OSError: there is no such model or config, or `--output` is there already.
        ValueError: model, records and flags do not fit.
    """
    args = parse_arguments()
    recipe, target = recipe_of(args), args.output.expanduser()
    folders = find_folders(args.model_name_or_path, weights=True)
    if folders.adapter is not None:
        raise ValueError(
            f"{args.model_name_or_path} is an adapter; merge it into its base with "
            "paddlemix/tools/merge_lora_params.py, and give the merged model."
        )
    with new_folder(target) as staged:
        base = Base.of(folders.model, recipe)
        if args.calibration is None:
            write(base, rounded(base), staged, args.dtype)
            print("no loss was computed: --calibration names no records")
        else:
            quantize_and_compare(base, calibration_of(args, base), staged, args)
    print(f"{target}: the quantised model")


def recipe_of(args: argparse.Namespace) -> Recipe:
    """Find out how weights are to be quantised.

    Args:
        args: the command line.

    Returns:
        The recipe.

    Raises:
        ValueError: flags contradict one another, or the format holds no such weights.
    """
    if args.method == "gptq" and args.calibration is None:
        raise ValueError(
            "--method gptq needs records: give a fine-tuning config with --calibration, or take --method rtn, which "
            "needs none."
        )
    counts = {"--calibration_records": args.calibration_records, "--held_out_records": args.held_out_records}
    for name, count in counts.items():
        if count is not None and args.calibration is None:
            raise ValueError(f"{name} has no effect without --calibration; take it out, or name a config.")
        if count is not None and count < 1:
            raise ValueError(f"{name} is {count}; expected 1 or more.")
    if args.method == "rtn":
        if args.damp_percent is not None or args.calibration_records is not None:
            flag = "--calibration_records" if args.damp_percent is None else "--damp_percent"
            raise ValueError(f"{flag} has no effect with --method rtn, which calibrates nothing; take it out.")
        damping = None
    else:
        damping = _DAMPING if args.damp_percent is None else args.damp_percent
    symmetric = args.format == "gptq" if args.sym is None else args.sym
    return Recipe(args.format, args.bits, args.group_size, symmetric, args.desc_act, damping)


def calibration_of(args: argparse.Namespace, base: Base) -> Calibration:
    """Choose the records, and say which they are.

    Args:
        args: the command line.
        base: the model.

    Returns:
        The records.

    Raises:
        OSError: the config or a record file is missing.
        ValueError: the config is wrong, or there are no records, or bad ones.
    """
    # Half precision is no mistake here: the config's model is not trained.
    config = load_config(args.calibration, ["--model_name_or_path", str(base.folder)], has_gpu=True)
    processor = find_family(base.folder).processor_class.from_pretrained(base.folder, **config.data.processor_settings)
    check_rows(processor.tokenizer, base.rows, str(base.folder))
    found = choose_records(
        config,
        processor,
        count=args.calibration_records or _RECORDS,
        held_out=args.held_out_records or _RECORDS,
        pixel_dtype=usable_dtype(None),
    )
    if args.method == "gptq":
        print(f"calibrating with {found.records.said}")
    return found


def quantize_and_compare(base: Base, calibration: Calibration, staged: Path, args: argparse.Namespace) -> None:
    """Quantise a model, and say what it costs.

    Args:
        base: the model.
        calibration: its records.
        staged: the folder to fill.
        args: the command line.

    Raises:
        ValueError: inputs or weights of a layer cannot be used, or a record has become bad.
    """
    model = load(base.folder)
    before = loss_of(model, calibration.held_out)
    if args.method == "gptq":
        quantized = calibrated(base, model, calibration.records)
        del model
    else:
        del model
        quantized = rounded(base)
    write(base, quantized, staged, args.dtype)
    after = loss_of(load(staged), calibration.held_out)
    print(f"loss of {calibration.held_out.said}: {before:.4f} before, {after:.4f} after")


def load(folder: Path) -> VisionLanguageModel:
    """Load a model in the precision of this machine."""
    return find_family(folder).model_class.from_pretrained(folder, usable_dtype(None))


def loss_of(model: VisionLanguageModel, records: ChosenRecords) -> float:
    """Compute the mean loss of records, with a bar."""
    with tqdm(total=len(records), desc="loss", unit="batch", disable=None) as bar:
        return mean_loss(model, records, bar.update)


def calibrated(base: Base, model: VisionLanguageModel, records: ChosenRecords) -> dict[str, Parts]:
    """Quantise a model's layers with records.

    Args:
        base: the model's checkpoint.
        model: which is changed.
        records: to calibrate with.

    Returns:
        The tensors of each layer.

    Raises:
        ValueError: inputs or weights of a layer cannot be used, or a record has become bad.
    """
    quantized: dict[str, Parts] = {}
    with _bar(base) as bar:

        def found(layer: str, blocks: Blocks) -> None:
            quantized[layer] = base.parts(layer, blocks)
            bar.update()

        quantize_along(model, base.layers, records, base.recipe, found)
    return quantized


def rounded(base: Base) -> dict[str, Parts]:
    """Round a checkpoint's weights to the nearest.

    Args:
        base: the checkpoint.

    Returns:
        The tensors of each layer.

    Raises:
        ValueError: a weight holds numbers that have no code.
    """
    quantized: dict[str, Parts] = {}
    with _bar(base) as bar:
        for layer in base.layers:
            quantized[layer] = base.parts(layer, base.rounded(layer))
            bar.update()
    return quantized


def write(base: Base, quantized: Mapping[str, Parts], staged: Path, dtype: str | None) -> None:
    """Write the quantised checkpoint, and say how large it is.

    Args:
        base: the checkpoint.
        quantized: the tensors of each layer.
        staged: the folder to fill.
        dtype: of what is not quantised; None stores what the base does.
    """
    with tqdm(total=base.bytes(quantized, dtype), desc="writing", unit="B", unit_scale=True, disable=None) as bar:
        base.write(staged, quantized, dtype, bar.update)
        print(f"{len(quantized)} layers hold {base.recipe.bits} bits a weight: {bar.total / 2**20:.1f} MiB are written")


def _bar(base: Base) -> tqdm:
    return tqdm(total=len(base.layers), desc="quantising", unit="layer", disable=None)


if __name__ == "__main__":
    with report_errors():
        main()
