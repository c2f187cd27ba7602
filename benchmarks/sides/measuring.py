"""Timing one part in a process of its own, and handing the numbers over as JSON."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Samples = dict[str, list[float]]
# By metric: "seconds" that it takes at the least, and what is computed or read in them.
Floors = dict[str, dict[str, float]]
Part = Callable[[Any, int], Samples]

WARM_UP = 2
# Memory settles over the first steps of training; paddlemix gives back what lies free after the 1st, 2nd, 4th, 8th ...
TRAINING_WARM_UP = 5


def seconds_of(call: Callable[[], Any], repeats: int, warm_up: int = WARM_UP) -> list[float]:
    """Measure seconds of each of `repeats` calls, after some that are not counted."""
    samples = []
    for _ in range(warm_up + repeats):
        start = time.perf_counter()
        call()
        samples.append(time.perf_counter() - start)
    return samples[warm_up:]


_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_mebibytes() -> float:
    """Read the most memory that this process has held."""
    if _STATUS.is_file():
        # getrusage would count what the parent held when it started this process.
        return _of_status("VmHWM")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def kind_asked() -> str | None:
    """Tell how the language model's weights are to be quantised; None for not at all."""
    return sys.argv[5] if len(sys.argv) > 5 else None


def begin_peak() -> None:
    """Let `peak_mebibytes` count from now on, where the system can."""
    if _CLEAR.is_file():
        _CLEAR.write_text("5")


def held_mebibytes() -> float:
    """Read the memory that this process holds, or the most that it has held."""
    return _of_status("VmRSS") if _STATUS.is_file() else peak_mebibytes()


def _of_status(key: str) -> float:
    (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) / 1024


def report(
    parts: dict[str, Part],
    versions: dict[str, str],
    shapes: dict[str, Any],
    compute_in: Callable[[str], Any],
    floors: Floors | None = None,
) -> None:
    """Run the part that the command line names, `PART SHAPE REPEATS DTYPE [KIND]`, and print what it measured.

    Args:
        parts: by name.
        versions: of the packages that are timed.
        shapes: by name.
        compute_in: settles what products are computed from, "float32" or "bfloat16"; weights stay float32.
        floors: filled while the part runs.
    """
    part, shape, repeats, dtype = sys.argv[1:5]
    compute_in(dtype)
    loaded = peak_mebibytes()
    samples = parts[part](shapes[shape], int(repeats))
    samples |= {"memory_after_import": [loaded], "peak_memory": [peak_mebibytes()]}
    json.dump({"versions": versions, "samples": samples, "floors": floors or {}}, sys.stdout)
