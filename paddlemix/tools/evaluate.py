"""Scores a model by what it generates: boxes by IoU, answers by exact match, captions by CIDEr and BLEU.

Examples:
    python paddlemix/tools/evaluate.py paddlemix/config/demo/qwen2_vl_shapes.json
    python paddlemix/tools/evaluate.py output/demo/model --dataset '[{"name": "vqa_dataset", "data_files": "vqa.json"}]'
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from paddlemix._environment import gpu_is_usable
from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.configuration.arguments import DatasetItem
from paddlemix.configuration.file import load_config
from paddlemix.configuration.reading.config_file import is_config_file
from paddlemix.datasets.mix_dataset import DatasetSpec, MixDataset
from paddlemix.evaluation.evaluate import evaluate_model
from paddlemix.evaluation.report import Prediction
from paddlemix.files import write_json
from paddlemix.generation import greedy_config
from paddlemix.media.kept import begin_refetch
from paddlemix.printable import printable
from paddlemix.processors.tokens.rows import check_rows
from paddlemix.tools.answering import add_grounding_flag
from paddlemix.tools.generation_flags import add_generation_flags, errors_name_flags, generation_settings
from paddlemix.tools.precision import usable_dtype
from paddlemix.tools.report_errors import report_errors


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "config_or_model", help="a fine-tuning config, the folder of a model or an adapter, or owner/name on the hub"
    )
    parser.add_argument("--model_name_or_path", help="the model, where it is not the one in the config's output_dir")
    parser.add_argument("--lora_path", help="an adapter's folder, where the model is its base")
    add_grounding_flag(parser)
    parser.add_argument("--dataset", type=parse_sets, help="a list as in the config's dataset.eval, in its place")
    parser.add_argument("--output", type=Path, help="JSON file for the scores (default: metrics.json in the model)")
    parser.add_argument("--predictions", type=Path, help="JSON file for every answer beside what was right")
    parser.add_argument("--batch_size", type=int, default=16, help="records answered at once (default: 16)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--on_bad_record", default="raise", choices=["raise", "skip"])
    add_generation_flags(
        parser,
        otherwise="What is not given is greedy, and ends where the model's generation_config.json says",
        defaults={"max_new_tokens": 128},
    )
    return parser.parse_args()


def parse_sets(text: str) -> list[DatasetItem]:
    """Parse the record sets that a command line spells as JSON."""
    try:
        return TypeAdapter(list[DatasetItem]).validate_json(text)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, one['loc'])) or 'the list'}: {one['msg']}" for one in error.errors())
        raise argparse.ArgumentTypeError(f"not a list of record sets: {'; '.join(problems)}") from error


def main() -> None:
    """Load model and records, let it answer, score."""
    args = parse_arguments()
    dtype = usable_dtype(args.dtype)
    folder, sets, bounds = model_and_sets(args)
    if args.grounding:
        bounds["grounding"] = args.grounding
    processor = AutoProcessorMIX.from_pretrained(folder, lora_path=args.lora_path, **bounds)
    output = args.output or scores_file(args.lora_path or folder)
    mix = MixDataset.load(sets, processor, args.on_bad_record)
    model = AutoModelMIX.from_pretrained(folder, dtype=dtype, lora_path=args.lora_path)
    check_rows(processor.tokenizer, model.config.vocab_size, args.lora_path or folder)
    with errors_name_flags():
        generation = greedy_config(model, **generation_settings(args))
    report, predictions = evaluate_model(model, processor, mix, generation, batch_size=args.batch_size)
    write_json(output, report)
    if args.predictions:
        write_json(args.predictions, [as_row(prediction) for prediction in predictions])
    print(printable(json.dumps(report, indent=2, ensure_ascii=False)))


def model_and_sets(args: argparse.Namespace) -> tuple[str, list[DatasetSpec], dict[str, Any]]:
    """Find the model's folder, the record sets, and the config's settings of images, videos and length.

    Args:
        args: the command line.

    Returns:
        The three of them; no bounds where a model's folder was given.

    Raises:
        ValueError: no record set is named.
    """
    items: list[DatasetItem] = args.dataset or []
    folder, bounds = args.config_or_model, {}
    if is_config_file(args.config_or_model):
        config = load_config(args.config_or_model, has_gpu=gpu_is_usable())
        if config.data.refetch:
            begin_refetch(time.time())
        items = items or config.data.dataset.eval
        folder = config.training["output_dir"]
        bounds = {
            **config.data.media_settings,
            "grounding": config.data.grounding,
            "allow_control_tokens": config.data.allow_control_tokens,
            "added_tokens": config.data.added_tokens,
            "max_length": config.data.max_length,
        }
    if not items:
        raise ValueError("no record set to evaluate on: give --dataset, or a config with `dataset.eval`.")
    return args.model_name_or_path or folder, [DatasetSpec(**asdict(item)) for item in items], bounds


def scores_file(folder: str) -> Path:
    """Choose where the scores go if nothing is said: beside the model.

    Args:
        folder: the model's.

    Returns:
        The file.

    Raises:
        ValueError: the model is one of the hub, and its folder the hub's cache.
    """
    local = Path(folder).expanduser()
    if not local.is_dir():
        raise ValueError(f"{folder} is no local folder that metrics.json could go into: give a file with --output.")
    return local / "metrics.json"


def as_row(prediction: Prediction) -> dict[str, Any]:
    """Write a prediction as JSON holds it."""
    return {**asdict(prediction), "source": str(prediction.source)}


if __name__ == "__main__":
    with report_errors():
        main()
