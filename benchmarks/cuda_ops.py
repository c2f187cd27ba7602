"""Checks and times the CUDA ops on a card, beside PyTorch's and, where it is installed, Liger-Kernel's.

    python benchmarks/cuda_ops.py --dtype bfloat16 --output benchmarks/results/cuda_ops.jsonl
    python benchmarks/cuda_ops.py --sanitizer memcheck

Needs a CUDA card, nvcc and PyTorch, but no Paddle: the C interface of `external_ops/cuda` is compiled and called.
Every value and gradient is compared with PyTorch's in float64 first, at odd shapes and addresses, on random inputs that
are others at each run. Printed are the share of the card's copy bandwidth (of PyTorch's rate of products for the head's
loss) and how many times longer the others take.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).resolve().parent / "sides"))

from cuda_cases import cases, check  # noqa: E402
from cuda_library import DTYPES, CudaOps  # noqa: E402


def main() -> None:
    """Check, then time, print and record."""
    arguments = parse_arguments()
    if arguments.sanitizer:
        raise SystemExit(run_sanitized(arguments.sanitizer))
    side = find_card()
    with tempfile.TemporaryDirectory() as folder:
        library = arguments.library or build(Path(folder))
        ops = CudaOps(library, side.TorchMemory())
        worst = check_all(ops, side.gradients, side.get, arguments)
        print_checks(worst)
        if wrong := [name for name, error in worst.items() if not error <= 1]:
            raise SystemExit(f"wrong results: {', '.join(wrong)}")
        if not arguments.check_only:
            rows = [{**about_card(), **row} for row in measure(side, ops, arguments)]
            print_rows(rows)
            record(rows, arguments.output)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="that is timed (default: bfloat16)")
    parser.add_argument("--only", default="", help="the ops to check and time, by the start of their names")
    parser.add_argument("--repeats", type=int, default=30, help="measurements of each number (default: 30)")
    parser.add_argument("--seed", type=int, help="of the inputs (default: another at each run)")
    parser.add_argument("--check_only", action="store_true", help="time nothing")
    parser.add_argument("--sanitizer", choices=("memcheck", "racecheck"), help="check under compute-sanitizer")
    parser.add_argument("--library", type=Path, help="a library built before")
    parser.add_argument("--output", type=Path, help="a JSONL file to which the rows are added")
    return parser.parse_args()


def find_card() -> Any:
    """Find what calls PyTorch.

    Raises:
        SystemExit: there is no PyTorch, or no card.
    """
    try:
        import torch
    except ImportError:
        raise SystemExit(f"{sys.executable} has no PyTorch, beside which the ops are checked.") from None
    if not torch.cuda.is_available():
        raise SystemExit("There is no CUDA card that PyTorch can use; the ops can only be compiled here.")
    import cuda_torch

    return cuda_torch


def build(folder: Path) -> Path:
    """Compile the C interface for this card.

    Raises:
        SystemExit: there is no nvcc, or it failed.
    """
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise SystemExit("There is no nvcc to compile external_ops/cuda with; install the CUDA toolkit.")
    library = folder / "paddlemix_cuda.so"
    choices = ["-std=c++17", "-O3", "-arch=native", "-shared", "-Xcompiler", "-fPIC,-fvisibility=hidden", "-lineinfo"]
    command = [nvcc, *choices, str(ROOT / "external_ops/cuda/c_api.cu"), "-lcublas", "-o", str(library)]
    if subprocess.run(command).returncode:
        raise SystemExit("nvcc failed; what it said stands above.")
    return library


def run_sanitized(tool: str) -> int:
    """Run the checks again under a tool of compute-sanitizer, and give its status.

    Raises:
        SystemExit: there is no compute-sanitizer.
    """
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        raise SystemExit("There is no compute-sanitizer; it comes with the CUDA toolkit.")
    find_card()
    with tempfile.TemporaryDirectory() as folder:
        # Compiled first: the sanitizer would watch the compiler too.
        script = [sys.executable, __file__, "--check_only", "--library", str(build(Path(folder)))]
        return subprocess.run([sanitizer, f"--tool={tool}", "--error-exitcode=1", *script]).returncode


def check_all(ops: CudaOps, gradients: Callable, get: Callable, arguments: argparse.Namespace) -> dict[str, float]:
    """Compute the largest error of each op and dtype, in parts of what is allowed."""
    seed = np.random.SeedSequence(arguments.seed)
    print(f"inputs of seed {seed.entropy}")
    worst: dict[str, float] = {}
    for dtype in DTYPES:
        for shift in (0, 1):
            for case in cases(ops, np.random.default_rng(seed), arguments.only):
                name, error = f"{case.name.split()[0]} {dtype}", check(case, ops, dtype, gradients, get, shift)
                worst[name] = max(worst.get(name, 0.0), error)
    if not worst:
        raise SystemExit(f"--only {arguments.only}: no op's name begins so.")
    return worst


def measure(side: Any, ops: CudaOps, arguments: argparse.Namespace) -> Iterator[dict]:
    """Make a row for each op and pass."""
    copy, products = side.copy_bandwidth(arguments.repeats), side.product_rate(arguments.dtype, arguments.repeats)
    for name, make in side.timings(ops, arguments.dtype).items():
        if not name.startswith(arguments.only):
            continue
        timing = make()
        theirs = {"torch": timing.torch, "liger": timing.liger}
        found = {"ours": side.time_ours(timing, arguments.repeats)}
        found |= {key: side.time_theirs(timing, call, arguments.repeats) for key, call in theirs.items() if call}
        works = timing.forward_work, timing.forward_work + timing.backward_work
        limit = products if timing.in_products else copy
        for index, (which, work) in enumerate(zip(("forward", "both"), works, strict=True)):
            yield row_of(name, which, work, limit, arguments.dtype, {key: both[index] for key, both in found.items()})


def row_of(op: str, which: str, work: float, limit: float, dtype: str, seconds: dict[str, float]) -> dict:
    """Describe one number: milliseconds, the share of the card's limit, and how many times longer the others take."""
    ours = seconds["ours"]
    ratios = {f"{side}_ratio": other / ours for side, other in seconds.items() if side != "ours"}
    return {
        "benchmark": Path(__file__).stem,
        "op": op,
        "pass": which,
        "dtype": dtype,
        "milliseconds": 1000 * ours,
        "share_of_limit": work / ours / limit,
        "limit_per_second": limit,
        **ratios,
    }


def about_card() -> dict[str, str]:
    """Describe card, driver, versions and date."""
    import torch

    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "card": torch.cuda.get_device_name(),
        "driver": driver[0] if driver else "unknown",
        "torch": torch.__version__,
    }


def print_checks(worst: dict[str, float]) -> None:
    """Print a line for each op and dtype."""
    print("largest error, in parts of what rounding allows")
    for name, error in worst.items():
        print(f"  {name:<32}{error:8.3f}{'' if error <= 1 else '  WRONG'}")


def print_rows(rows: list[dict]) -> None:
    """Print a line for each number."""
    print(
        "op".ljust(28) + "pass".ljust(10) + "ms".rjust(9) + "of limit".rjust(10) + "PyTorch".rjust(9) + "Liger".rjust(9)
    )
    for row in rows:
        ratios = "".join(f"{row[key]:8.2f}x" if key in row else "-".rjust(9) for key in ("torch_ratio", "liger_ratio"))
        share = f"{row['share_of_limit']:9.0%}"
        print(f"{row['op']:<28}{row['pass']:<10}{row['milliseconds']:9.3f} {share}{ratios}")


def record(rows: list[dict], output: Path | None) -> None:
    """Add the rows to a file."""
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
