"""How fast each fused CPU op is, beside Paddle's own and PyTorch's, at the small model's shapes; and a vision tower.

    python benchmarks/ops_cpu.py --torch_python ../reference/bin/python --output rows.jsonl

Prints milliseconds of the forward pass, and of forward and backward: the shortest of all repeats. Ops on images have
a forward pass alone, on one thread, and numpy stands in for Paddle. On a busy machine `--threads 1 --clock cpu` counts
the process's own time, which other programs disturb little.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

from qwen2_vl_cpu import ROOT, SIDES, find_torch, processor


def main() -> None:
    """Measure, print and record."""
    arguments = parse_arguments()
    paddle_side, torch_side = SIDES / "ops_paddle_side.py", SIDES / "ops_torch_side.py"
    found = {
        "built": run_side(sys.executable, paddle_side, arguments),
        "Paddle": run_side(sys.executable, paddle_side, arguments, PADDLEMIX_OPS="reference"),
    }
    torch_python = find_torch(arguments.torch_python)
    if torch_python:
        found["PyTorch"] = run_side(torch_python, torch_side, arguments)
    print_table(found, arguments)
    if arguments.output:
        with arguments.output.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows_of(found, arguments))


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20, help="measurements of each number (default: 20)")
    parser.add_argument("--threads", type=int, default=2, help="of the arithmetic (default: 2)")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu counts the process's own time")
    parser.add_argument("--only", nargs="+", default=[], help="ops to measure, by the start of their names")
    parser.add_argument("--torch_python", help="a Python that has torch and transformers")
    parser.add_argument("--output", type=Path, help="a JSONL file to which the rows are added")
    return parser.parse_args()


def run_side(
    python: str, script: Path, arguments: argparse.Namespace, **variables: str
) -> dict[str, list[list[float]]]:
    """Measure seconds by op, forward and both, in a process of its own.

    Raises:
        SystemExit: the process failed; its last words are shown.
    """
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(arguments.threads))
    path = "" if "torch" in script.name else os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, **threads, **variables, "PYTHONPATH": path}
    command = [python, str(script), str(arguments.repeats), arguments.clock, *arguments.only]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    if finished.returncode:
        raise SystemExit(f"{script.name}: {python} failed.\n{finished.stderr[-2000:]}")
    return json.loads(finished.stdout.splitlines()[-1])


def rows_of(found: dict[str, dict], arguments: argparse.Namespace) -> list[dict]:
    """Make a row for each number."""
    about = {
        "benchmark": Path(__file__).stem,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": processor(),
        "load": os.getloadavg()[0],
        "threads": arguments.threads,
        "clock": arguments.clock,
    }
    return [
        {**about, "side": side, "op": op, "pass": name, "milliseconds": 1000 * min(samples)}
        for side, ops in found.items()
        for op, passes in ops.items()
        for name, samples in zip(("forward", "both"), passes, strict=False)
    ]


def print_table(found: dict[str, dict], arguments: argparse.Namespace) -> None:
    """Print a line for each op: milliseconds forward / both of every side."""
    print(f"float32, {arguments.threads} threads, {arguments.clock} clock, {processor()}")
    print("ms forward / forward and backward".ljust(42) + "".join(side.rjust(20) for side in found))
    for op in found["built"]:
        cells = (" / ".join(f"{1000 * min(samples):.3g}" for samples in ops[op]) for ops in found.values())
        print(op.ljust(42) + "".join(cell.rjust(20) for cell in cells))


if __name__ == "__main__":
    main()
