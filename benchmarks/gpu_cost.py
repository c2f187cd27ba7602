"""What training, a prompt and a token ask of a GPU, counted without one: kernels, FLOPs, bytes, waits, and the time.

Ops and shapes are those of the published models, whole: for paddlemix of the static programs of `tests/gpu`, for
transformers of its own ops on tensors without memory. Nothing is timed. Milliseconds are those of a card that reaches
the rates of `sides/card_rates.py` in every kernel, of which each takes the longer of its products and its memory.

    python benchmarks/gpu_cost.py --family qwen2_vl --shape 2B --card H100
    python benchmarks/gpu_cost.py --family qwen2_5_vl --shape 7B --card A100 --level O1 --batch padded
    python benchmarks/gpu_cost.py --family qwen2_vl --shape 2B --card 4090 --mode prefill token --json
    python benchmarks/gpu_cost.py --family qwen2_vl --shape 7B --card 4090 --mode lora qlora token qtoken

A batch has `--samples` of `--tokens` tokens, each of which begins with an image of 448 x 448 pixels (256 tokens); the
others are targets. A pack holds them end to end, padded rows are full. A prompt is all of it in one row. The step ends
with clipping and AdamW. What transformers asks for is kept in `results/gpu_cost_transformers.json` by shape;
`--torch_python` names a Python that has torch and transformers, to count others. It holds weights in bfloat16, as O2
does, and has no Qwen-VL.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sides.card_rates import CARDS, Card, seconds

HERE = Path(__file__).parent
ROOT = HERE.parent
KEPT_COUNTS = HERE / "results" / "gpu_cost_transformers.json"
GRID = [1, 32, 32]  # patches of an image of 448 x 448
# Keys of a config.json that say a model's shape.
SHAPE_KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "num_hidden_layers",
    "vocab_size",
    "tie_word_embeddings",
    "rope_scaling",
    "vision_config",
)
MODES = ("step", "prefill", "token")
# A step that trains adapters of rank 8 on all linear layers but the head; and with a decoder whose weights are codes of
# 4 bits such a step, a prompt and a token.
ON_REQUEST = ("lora", "qlora", "qprefill", "qtoken")


def main() -> None:
    """Count, print and keep."""
    arguments = parse_arguments()
    spec = spec_of(arguments)
    cases = {f"paddlemix {name}": case for name, case in count("paddlemix_counts.py", sys.executable, spec).items()}
    cases |= {f"transformers {name}": case for name, case in transformers_counts(spec, arguments).items()}
    card = CARDS[arguments.card]
    rows = [row for name, case in cases.items() for row in rows_of(name, case, card, arguments)]
    if arguments.json:
        print(json.dumps({"model": spec["name"], "card": arguments.card, "rows": rows}, indent=2))
    else:
        print_table(spec["name"], rows, arguments)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", required=True, choices=("qwen2_vl", "qwen2_5_vl", "qwen"), help="its model_type")
    parser.add_argument("--shape", help="2B, 3B, 7B, 32B or 72B, of which the family has some; none of Qwen-VL")
    parser.add_argument("--card", choices=CARDS, default="H100", help="whose rates are taken (default: H100)")
    parser.add_argument("--level", choices=("O1", "O2"), default="O2", help="of training (default: O2)")
    parser.add_argument("--batch", choices=("pack", "padded"), default="pack", help="of training (default: pack)")
    parser.add_argument(
        "--mode",
        nargs="+",
        choices=(*MODES, *ON_REQUEST),
        default=MODES,
        help=f"what is counted (default: {' '.join(MODES)}); q: weights of codes",
    )
    parser.add_argument("--samples", type=int, default=4, help="of a batch (default: 4)")
    parser.add_argument("--tokens", type=int, default=512, help="of a sample, at least 258 (default: 512)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--torch_python", help="a Python that has torch and transformers; counts and keeps")
    arguments = parser.parse_args()
    if arguments.samples < 1 or arguments.tokens < 258:
        parser.error(f"--samples {arguments.samples} --tokens {arguments.tokens}: expected at least 1 and 258.")
    return arguments


def spec_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Say what is to be counted.

    Raises:
        SystemExit: the family has no such shape.
    """
    from paddlemix.models.registry import FAMILIES

    family = next(one for one in FAMILIES if one.model_type == arguments.family)
    names = {name.partition("/")[2]: values for name, values in family.published.items()}
    shapes = {name.rpartition("-")[2] if len(names) > 1 else "": name for name in names}
    if (arguments.shape or "") not in shapes:
        raise SystemExit(
            f"--shape is {arguments.shape}; expected {' or '.join(shapes) or 'none'} of {arguments.family}."
        )
    name = shapes[arguments.shape or ""]
    values = family.config_class(**names[name]).to_dict()
    return {
        "family": arguments.family,
        "name": name,
        "rows": arguments.samples,
        "tokens": arguments.tokens,
        "images": [GRID] * arguments.samples,
        "config": {key: values[key] for key in SHAPE_KEYS if key in values},
        "cases": [[mode, arguments.level, arguments.batch] for mode in arguments.mode],
    }


def count(script: str, python: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Run a script that counts, in a process of its own.

    Raises:
        SystemExit: it failed; its last lines say why.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spec.json"
        path.write_text(json.dumps(spec), "utf-8")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PADDLEMIX_OPS": "reference"}
        command = [python, str(HERE / "sides" / script), str(path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{script} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])["cases"]


def transformers_counts(spec: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Read transformers' counts of these modes, or count and keep them."""
    key = f"{spec['name']}, {spec['rows']} x {spec['tokens']}"
    kept = json.loads(KEPT_COUNTS.read_text("utf-8")) if KEPT_COUNTS.exists() else {}
    if arguments.torch_python and arguments.family != "qwen":
        kept[key] = count("transformers_counts.py", arguments.torch_python, spec)
        KEPT_COUNTS.parent.mkdir(exist_ok=True)
        beside = KEPT_COUNTS.with_suffix(".new")
        lines = (f"{json.dumps(name)}: {json.dumps(cases)}" for name, cases in sorted(kept.items()))
        beside.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
        beside.replace(KEPT_COUNTS)
    return {name: case for name, case in kept.get(key, {}).items() if name.split()[0] in arguments.mode}


def rows_of(name: str, case: dict[str, Any], card: Card, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Add up a case's ops; those of a step's optimizer are a row of their own."""
    rows = [row_of(name, case["works"], case, card)]
    if case["parameters"]:
        make = paddle_optimizer if name.startswith("paddlemix") else torch_optimizer
        works = make(case["parameters"], arguments.level)
        rows.append(row_of(f"{name}, optimizer", works, {"kept": 0, "waits": 0, "copies": 0}, card))
    return rows


def row_of(name: str, works: Iterable[Any], case: dict[str, Any], card: Card) -> dict[str, Any]:
    """Add up ops."""
    kernels, flops, moved = (sum(one[place] * one[6] for one in works) for place in (2, 3, 4))
    return {
        "name": name,
        "kernels": kernels,
        "flops": flops,
        "bytes": moved,
        "kept": case["kept"],
        "waits": case["waits"],
        "copies": case["copies"],
        "seconds": seconds(works, card),
    }


def paddle_optimizer(parameters: list[int], level: str) -> list[list[Any]]:
    """Count clipping and AdamW as Paddle runs them, parameter by parameter; O2 adds gradients up in float32 before."""
    numbers, count = sum(parameters), len(parameters)
    # Moments and the weight that is updated, in float32; O2 writes its rounded copy too.
    updated = 28 + (2 if level == "O2" else 0)
    works = [
        ["squared_l2_norm", "optimizer", 2 * count, 0, 4 * numbers, False, 1],
        ["sum_of_norms", "optimizer", 4, 0, 8 * count, False, 1],
        ["multiply_", "optimizer", count, 0, 8 * numbers, False, 1],
        ["adamw", "optimizer", count, 0, updated * numbers, False, 1],
    ]
    return works + ([["cast", "optimizer", count, 0, 6 * numbers, False, 1]] if level == "O2" else [])


def torch_optimizer(parameters: list[int], level: str) -> list[list[Any]]:
    """Count clipping and fused AdamW as torch runs them, many parameters a kernel, all in the weights' bfloat16.

    A kernel takes at most 320 pieces of 65,536 numbers, and some 30 parameters.
    """
    del level
    numbers = sum(parameters)
    launches = max(math.ceil(len(parameters) / 30), math.ceil(sum(math.ceil(n / 65536) for n in parameters) / 320))
    return [
        ["foreach_norm", "optimizer", 2 * launches, 0, 2 * numbers, False, 1],
        ["foreach_mul_", "optimizer", launches, 0, 4 * numbers, False, 1],
        ["fused_adamw", "optimizer", launches, 0, 14 * numbers, False, 1],
    ]


def print_table(name: str, rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Print a table in Markdown."""
    samples = f"{arguments.samples} x {arguments.tokens} tokens with an image of 256 each"
    print(f"{name}, {samples}, {arguments.level}, {arguments.batch}, at the rates of a {arguments.card}. Counted.\n")
    print("| | kernels | TFLOP | GB moved | GB kept | waits | copies | ms |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        numbers = f"{row['flops'] / 1e12:.3g} | {row['bytes'] / 1e9:.1f} | {row['kept'] / 1e9:.2f}"
        last = f"{row['waits']} | {row['copies']} | {1000 * row['seconds']:.3g}"
        print(f"| {row['name']} | {row['kernels']:,} | {numbers} | {last} |")


if __name__ == "__main__":
    main()
