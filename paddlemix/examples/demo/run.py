"""The demo: fine-tunes a small Qwen2-VL on shapes and colours that it has never seen, and looks at what it learned.

First all of its parameters; then, for comparison, adapters alone, which are merged into the weights.

Each step is a command of the library, printed as it is run, so that it can be repeated by hand.

Example:
    python paddlemix/examples/demo/run.py --output_dir output/demo --seed 0
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from paddlemix.files import replacing, write_json
from paddlemix.tools.report_errors import report_errors

ROOT = Path(__file__).parents[3]
DEMO = Path("paddlemix/examples/demo")
CONFIG = Path("paddlemix/config/demo/qwen2_vl_shapes.json")
LORA_CONFIG = Path("paddlemix/config/demo/qwen2_vl_shapes_lora.json")
STEPS = 8
BASE_MODEL = DEMO / "base_model"
SETS = {
    "train_grounding": "chatml_dataset",
    "train_chat": "chatml_dataset",
    "train_vqa": "vqa_dataset",
    "train_caption": "coco_caption",
    "eval_grounding": "chatml_dataset",
    "eval_vqa": "vqa_dataset",
    "eval_caption": "coco_caption",
}
EVERY_SHAPE = "Find every shape."


def main() -> None:
    """Render, evaluate, fine-tune, evaluate again, predict; train adapters, merge, predict; sum up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("output/demo"), help="default: output/demo")
    parser.add_argument("--seed", type=int, default=0, help="of images, records and training (default: 0)")
    parser.add_argument("--train", type=int, default=36000, help="images to train on (default: 36000)")
    parser.add_argument("--eval", type=int, default=240, help="held-out grounding questions (default: 240)")
    args = parser.parse_args()
    output, started = args.output_dir.resolve(), time.monotonic()

    data, model = output / "data", output / "model"

    step(1, "render images and records", rendering(data, args))
    step(
        2,
        "evaluate the base model, which does not know the new shapes and colours",
        evaluation(BASE_MODEL, output, "before"),
    )
    step(3, "fine-tune", finetuning(CONFIG, model, output, args.seed))
    step(4, "evaluate the fine-tuned model", evaluation(model, output, "after"))
    image = held_out_image(data)
    step(5, "find every shape in a held-out image", prediction(model, image, output))
    adapter, merged = output / "adapter", output / "merged"
    tuning = finetuning(LORA_CONFIG, adapter, output, args.seed)
    step(6, "train adapters of the base model, for a few steps", tuning)
    # The tool overwrites nothing; this run's own result of an earlier time makes room.
    shutil.rmtree(merged, ignore_errors=True)
    step(7, "merge them into its weights", merging(adapter, merged))
    step(8, "find every shape with the merged model", prediction(merged, image, output / "lora"))
    sum_up(output, args.seed, time.monotonic() - started)


def step(number: int, title: str, command: list[Any], *, of: int = STEPS) -> None:
    """Say what is done, show the command, run it."""
    words = [str(word) for word in command]
    print(f"\n[{number}/{of}] {title}\n$ {shlex.join(['python', *words])}", flush=True)
    ended = subprocess.run([sys.executable, *words], cwd=ROOT, check=False)
    if ended.returncode:
        raise SystemExit(f"demo: step {number} ({title}) ended with code {ended.returncode}; its message is above.")


def rendering(data: Path, args: argparse.Namespace) -> list[Any]:
    """Give the command that draws the set of new shapes and colours."""
    sizes = ["--train", args.train, "--eval", args.eval, "--seed", args.seed]
    return [DEMO / "make_data.py", "--output_dir", data, "--set", "new", *sizes, "--overwrite"]


def finetuning(config: Path, result: Path, output: Path, seed: int) -> list[Any]:
    """Give the command that fine-tunes the base model as a config says."""
    places = ["--output_dir", result, "--logging_dir", output / "visualdl" / result.name]
    records = ["--dataset", json.dumps(dataset(output))]
    return ["paddlemix/tools/supervised_finetune.py", config, *places, *records, "--seed", seed]


def merging(adapter: Path, merged: Path) -> list[Any]:
    """Give the command that merges an adapter into the base model."""
    folders = ["--model_name_or_path", BASE_MODEL, "--lora_path", adapter, "--merge_model_path", merged]
    return ["paddlemix/tools/merge_lora_params.py", *folders]


def prediction(model: Path, image: Path, output: Path) -> list[Any]:
    """Give the command that draws a model's boxes on an image."""
    question = ["--input_image", image, "--prompt", EVERY_SHAPE, "--max_new_tokens", 160]
    return [
        "paddlemix/examples/qwen2_vl/run_predict.py",
        "--model_name_or_path",
        model,
        *question,
        "--output_dir",
        output,
    ]


def evaluation(model: Path, output: Path, name: str) -> list[Any]:
    """Give the command that scores a model on the held-out records."""
    sets = json.dumps(dataset(output)["eval"])
    return ["paddlemix/tools/evaluate.py", model, "--dataset", sets, "--output", output / f"{name}.json"]


def dataset(output: Path) -> dict[str, list[dict[str, str]]]:
    """Give the config's `dataset`, with the records where this run has put them."""
    return {
        part: [
            {"name": name, "data_files": str(output / "data" / f"{file}.json")}
            for file, name in SETS.items()
            if file.startswith(part)
        ]
        for part in ("train", "eval")
    }


def held_out_image(data: Path) -> Path:
    """Find a held-out image with several shapes, known by its caption."""
    captions = json.loads((data / "eval_caption.json").read_text("utf-8"))
    several = [record for record in captions if " and " in record["caption"]]
    return data / (several or captions)[0]["image"]


def sum_up(output: Path, seed: int, seconds: float) -> None:
    """Join the scores to metrics.json, put the loss curve beside it, say where everything is."""
    before, after = (json.loads((output / f"{name}.json").read_text("utf-8")) for name in ("before", "after"))
    write_json(output / "metrics.json", {"seed": seed, "seconds": round(seconds), "before": before, "after": after})
    with replacing(output / "loss.png") as staged:
        shutil.copyfile(output / "model" / "loss.png", staged)
    print(f"\n{'':<28} {'before':>8} {'after':>8}")
    for title, section, score in (
        ("grounding accuracy, IoU 0.5", "grounding", "grounding_accuracy@0.5"),
        ("mean IoU", "grounding", "mean_iou"),
        ("VQA exact match", "vqa", "exact_match"),
        ("caption CIDEr", "caption", "cider"),
    ):
        print(f"{title:<28} {shown(before[section][score]):>8} {shown(after[section][score]):>8}")
    print(f"\n{seconds / 60:.1f} minutes. In {output}: model/, metrics.json, loss.png, pred.jpg, visualdl/,")
    print("adapter/, merged/ and lora/pred.jpg, what the merged adapters find")


def shown(value: float | None) -> str:
    """Write a score with three digits; some have no value on very few records."""
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    with report_errors():
        main()
