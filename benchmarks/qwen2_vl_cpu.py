"""How fast Qwen2-VL trains, reads prompts, writes and preprocesses images on a CPU, beside transformers on torch.

Prints, for each library, the median and the 10th and 90th percentile of

- a training step: forward, backward and AdamW of all parameters;
- a prefill of the batch, with the vision tower and a cache, and one token written behind one row of it;
- images resized, normalised and cut a second, by one thread;
- the peak memory of a process that does nothing else;

and beside paddlemix's step, prefill and token how many times their floor they take: the step's products alone, each
shape at the rate measured in this run, and of a token the reading of its weights and its cache at the speed of memory
measured in this run.

    python benchmarks/qwen2_vl_cpu.py --torch_python ../reference/bin/python --output rows.jsonl
    python benchmarks/qwen2_vl_cpu.py --parts train --compute_dtype bfloat16 --torch_python ../reference/bin/python
    python benchmarks/qwen2_vl_cpu.py --parts train --shape large_vocabulary --torch_python ../reference/bin/python
    python benchmarks/qwen2_vl_cpu.py --parts generate --quantize int8 int4 nf4 --torch_python ../reference/bin/python

Weights are float32; `--compute_dtype bfloat16` is paddlemix's `cpu_compute_dtype` and torch's autocast. transformers
attends with SDPA, its AdamW is fused, and its malloc keeps what is freed, as paddlemix's does up to 128 MB.

`--quantize` adds to prefill and token those of a language model whose linear layers are held as codes, and beside int8
and int4 those of transformers with torch's own products of such weights (`_weight_int8pack_mm`,
`_weight_int4pack_mm_for_cpu`). The head stays in float32 in all of them.

Every measurement runs in a process of its own, the libraries in turn, so that what else the machine does meets both.
transformers is measured where it is installed, or with the Python that `--torch_python` names; without it paddlemix is
measured alone. Close other programs first, and compare only rows of one run: the load that a row records should be
about 0 at the start.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SIDES = Path(__file__).parent / "sides"
PARTS = ("train", "generate", "images")
KINDS = ("int8", "int4", "nf4")
# What torch has products for.
TORCH_KINDS = ("int8", "int4")
# Tensors up to a gigabyte stay with torch's process when they are freed; glibc would map them anew, page by page.
KEPT = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(2**30))
# What is shown of each measured number: its title, its unit, and what makes the unit of the samples.
SHOWN = {
    "training_step": ("training step", "s", lambda seconds: seconds),
    "prefill": ("prefill", "s", lambda seconds: seconds),
    "decode_token": ("one more token", "ms", lambda seconds: 1000 * seconds),
    "image": ("images", "/s", lambda seconds: 1 / seconds),
    "peak_memory": ("peak memory", "MiB", lambda mebibytes: mebibytes),
    "memory_after_import": ("memory after import", "MiB", lambda mebibytes: mebibytes),
    "parameters": ("parameters", "M", lambda count: count / 1e6),
}


def main() -> None:
    """Measure, print and record."""
    arguments = parse_arguments()
    pythons = {"paddlemix": sys.executable}
    torch_python = find_torch(arguments.torch_python)
    if torch_python:
        pythons["transformers"] = torch_python
    else:
        print("transformers on torch is not installed here; --torch_python names a Python that has it.\n")
    rows = []
    for part in arguments.parts:
        for side, kind in sides_of(part, pythons, arguments.quantize):
            measured = run_side(side, pythons[side], part, arguments, kind)
            about = {"part": part, "shape": arguments.shape, "compute_dtype": arguments.compute_dtype}
            rows += [row | about | {"quantize": kind} for row in rows_of(side, measured)]
    print_table(rows, arguments)
    if arguments.output:
        with arguments.output.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


def sides_of(part: str, pythons: Collection[str], kinds: Sequence[str]) -> list[tuple[str, str | None]]:
    """List who is measured in a part, and with which weights: plain ones first, then of each kind that is asked for.

    Args:
        part: weights are quantised for generating alone.
        pythons: the libraries that are there.
        kinds: that are asked for.

    Returns:
        Libraries and kinds.
    """
    asked = [None, *(kinds if part == "generate" else ())]
    return [(side, kind) for kind in asked for side in pythons if side == "paddlemix" or kind in (None, *TORCH_KINDS)]


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shape",
        choices=("small", "large_vocabulary", "tiny"),
        default="small",
        help="large_vocabulary: small with 151,936 tokens; tiny only shows that it runs",
    )
    parser.add_argument(
        "--compute_dtype", choices=("float32", "bfloat16"), default="float32", help="of the factors of products"
    )
    parser.add_argument(
        "--quantize", nargs="+", choices=KINDS, default=(), help="kinds of weights to generate with beside float32"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: all)")
    parser.add_argument("--repeats", type=int, default=10, help="measurements of each number (default: 10)")
    parser.add_argument("--threads", type=int, default=2, help="of the arithmetic (default: 2)")
    parser.add_argument("--torch_python", help="a Python that has torch and transformers")
    parser.add_argument("--output", type=Path, help="a JSONL file to which the rows are added")
    return parser.parse_args()


def find_torch(named: str | None) -> str | None:
    """Find the Python that has torch and transformers, the named one or this one; none where there is none.

    Raises:
        SystemExit: transformers' Qwen2-VL cannot be imported there.
    """
    python = named or own_torch_python()
    if python:
        check_torch(python)
    return python


def own_torch_python() -> str | None:
    """Return this Python, if it has torch and transformers."""
    has_both = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
    return sys.executable if has_both else None


def check_torch(python: str) -> None:
    """Make sure, before minutes are spent, that transformers' model can be had there.

    Raises:
        SystemExit: it cannot.
    """
    command = [python, "-c", "from transformers import Qwen2VLForConditionalGeneration"]
    try:
        asked = subprocess.run(command, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True)
    except OSError as error:
        raise SystemExit(f"--torch_python {python}: it cannot be started: {error.strerror}") from error
    if asked.returncode:
        said = asked.stderr.strip().splitlines() or [f"it ended with {asked.returncode}"]
        raise SystemExit(f"--torch_python {python}: transformers' Qwen2-VL cannot be imported there: {said[-1]}")


def run_side(
    side: str, python: str, part: str, arguments: argparse.Namespace, kind: str | None = None
) -> dict[str, Any]:
    """Measure one part of one library in a process of its own.

    Raises:
        SystemExit: the process failed; its last words are shown.
    """
    # Paddle and torch read the number of threads when they are loaded. Paddle warns of any but 1, with no harm done.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(arguments.threads))
    # paddlemix settles by itself what malloc keeps.
    ours = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    own = {"PYTHONPATH": ours} if side == "paddlemix" else {"PYTHONPATH": "", **KEPT}
    environment = {**os.environ, **threads, **own}
    command = [python, str(SIDES / f"{side}_side.py"), part, arguments.shape, str(arguments.repeats)]
    command += [arguments.compute_dtype, *([kind] if kind else [])]
    load = os.getloadavg()[0]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    if finished.returncode:
        raise SystemExit(f"{side}, {part}: {python} failed.\n{finished.stderr[-2000:]}")
    # Libraries may print before it.
    measured = json.loads(finished.stdout.splitlines()[-1])
    return {**measured, "load": load}


def rows_of(side: str, measured: dict[str, Any]) -> list[dict[str, Any]]:
    """Make a row for each number that was measured."""
    about = {
        "benchmark": Path(__file__).stem,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": processor(),
        "load": measured["load"],
        "versions": measured["versions"],
    }
    rows = []
    for metric, samples in measured["samples"].items():
        _, unit, in_unit = SHOWN[metric]
        values = [in_unit(sample) for sample in samples]
        row = {**about, "side": side, "metric": metric, "unit": unit, **summary(values)}
        rows.append(row | floor_of(row["median"], measured.get("floors", {}).get(metric), in_unit))
    return rows


def floor_of(median: float, floor: dict[str, float] | None, in_unit: Callable[[float], float]) -> dict[str, Any]:
    """Describe the least that a median can be, and how many times that it is.

    Args:
        median: in its unit.
        floor: as the side has measured it; none where there is none.
        in_unit: makes the unit of seconds.

    Returns:
        Values of a row; none where there is no floor.
    """
    if not floor:
        return {}
    least = in_unit(floor["seconds"])
    return {"floor": least, "times_floor": median / least, **{key: floor[key] for key in floor if key != "seconds"}}


def summary(values: list[float]) -> dict[str, float]:
    """Compute median, 10th and 90th percentile, and how many there were."""
    tenths = statistics.quantiles(values, n=10, method="inclusive") if len(values) > 1 else values
    return {"median": statistics.median(values), "p10": tenths[0], "p90": tenths[-1], "samples": len(values)}


def processor() -> str:
    """Read the processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.is_file() else []
    return names[0].split(":")[1].strip() if names else platform.processor()


def print_table(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Print a line for each number, a column for each library; quantised weights below the plain ones."""
    sides = list(dict.fromkeys(row["side"] for row in rows))
    print(f"shape {arguments.shape}, {arguments.compute_dtype}, {arguments.threads} threads, {processor()}")
    print("median (10th - 90th percentile)".ljust(38) + "".join(side.rjust(44) for side in sides))
    for part, kind in dict.fromkeys((row["part"], row["quantize"]) for row in rows):
        print(part if kind is None else f"{part}, {kind}")
        for metric, (title, unit, _) in SHOWN.items():
            found = {
                row["side"]: in_words(row)
                for row in rows
                if (row["part"], row["quantize"], row["metric"]) == (part, kind, metric)
            }
            if found:
                print(f"  {title}, {unit}".ljust(38) + "".join(found.get(side, "").rjust(44) for side in sides))


def in_words(row: dict[str, Any]) -> str:
    """Write a row's numbers, the percentiles where there are several samples."""
    spread = f" ({row['p10']:.4g} - {row['p90']:.4g})" if row["samples"] > 1 else ""
    floor = f", {row['times_floor']:.2f} x its floor" if "floor" in row else ""
    return f"{row['median']:.4g}{spread}{floor}"


if __name__ == "__main__":
    main()
