"""Compares adapters on a base in 4 bits with adapters on the same base in float32, on the demo's records.

Both train for 200 steps on what the base has never seen. What they gain is by how much the loss on held-out records is
below that of the float32 base; of Q-LoRA at least 0.95 of LoRA's is expected.

Example:
    python paddlemix/examples/demo/compare_qlora.py --output_dir output/demo/qlora
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from paddlemix.examples.demo.run import CONFIG, LORA_CONFIG, finetuning, rendering, step
from paddlemix.files import write_json
from paddlemix.tools.report_errors import report_errors

QLORA_CONFIG = Path("paddlemix/config/demo/qwen2_vl_shapes_qlora.json")
RESULTS_FILE = "gains.json"
WANTED = 0.95
_STEPS = 5


def main() -> None:
    """Render, evaluate both bases, train both kinds of adapters, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("output/demo/qlora"), help="default: output/demo/qlora")
    parser.add_argument("--seed", type=int, default=0, help="of images, records and training (default: 0)")
    parser.add_argument("--train", type=int, default=10000, help="images to train on (default: 10000)")
    parser.add_argument("--eval", type=int, default=240, help="held-out grounding questions (default: 240)")
    parser.add_argument("--steps", type=int, default=200, help="of each training (default: 200)")
    args = parser.parse_args()
    output = args.output_dir.resolve()

    step(1, "render images and records", rendering(output / "data", args), of=_STEPS)
    only_evaluate = ["--do_train", "false", "--do_eval", "true"]
    train = ["--max_steps", args.steps, "--do_eval", "true", "--eval_steps", args.steps]
    runs: tuple[tuple[str, str, Path, list[Any]], ...] = (
        ("base", "evaluate the base in float32", CONFIG, only_evaluate),
        ("coded_base", "evaluate the base in 4 bits", CONFIG, [*only_evaluate, "--quantize", "int4"]),
        ("lora", "train adapters on the base in float32", LORA_CONFIG, train),
        ("qlora", "train adapters on the base in 4 bits", QLORA_CONFIG, train),
    )
    for number, (name, title, config, flags) in enumerate(runs, 2):
        step(number, title, [*finetuning(config, output / name, output, args.seed), *flags], of=_STEPS)
    compare(output, {name: held_out_loss(output / name) for name, *_ in runs})


def held_out_loss(folder: Path) -> float:
    """Read the loss on held-out records that a run has written."""
    return float(json.loads((folder / "all_results.json").read_text("utf-8"))["eval_loss"])


def compare(output: Path, losses: dict[str, float]) -> None:
    """Print losses and gains, and write them as JSON; `losses` has those of both bases and both kinds of adapters."""
    gains = {name: losses["base"] - losses[name] for name in ("lora", "qlora")}
    ratio = gains["qlora"] / gains["lora"] if gains["lora"] > 0 else None
    write_json(output / RESULTS_FILE, {"held_out_loss": losses, "gain": gains, "ratio": ratio})
    print(f"\n{'held-out loss':<24} {'before':>8} {'after':>8} {'gain':>8}")
    for title, name, base in (("LoRA on float32", "lora", "base"), ("Q-LoRA on int4", "qlora", "coded_base")):
        print(f"{title:<24} {losses[base]:>8.4f} {losses[name]:>8.4f} {gains[name]:>8.4f}")
    print("\nBoth gains are counted from the loss of the float32 base.")
    if ratio is None:
        print("LoRA has gained nothing: train for more steps.")
    else:
        print(f"Q-LoRA has {ratio:.3f} of LoRA's gain; at least {WANTED} is expected after 200 steps.")


if __name__ == "__main__":
    with report_errors():
        main()
