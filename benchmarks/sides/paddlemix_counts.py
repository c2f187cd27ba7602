"""Counts what a step of paddlemix asks of a GPU, from the programs of `tests/gpu`; runs in a process of its own.

`paddlemix_counts.py SPEC.json` prints JSON: of each case its ops, as [name, phase, kernels, FLOPs, bytes, whether its
products are of float32, how many such ops there are], the bytes that stay for the backward pass, waits of the host,
tensors that it hands over, and the numbers of each trained parameter.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "gpu"))
import static_program  # isort: skip - it prepares Paddle
from static_ledger import Ledger


def count(spec: dict[str, Any], mode: str, level: str, batch: str) -> dict[str, Any]:
    """Count one case."""
    family, name, samples, tokens = spec["family"], spec["name"], spec["rows"], spec["tokens"]
    grids = tuple(map(tuple, spec["images"]))
    if mode not in ("step", "lora", "qlora"):
        given = static_program.Batch("padded", (0, tokens * samples), 1, 0, grids)
        step = static_program.make_step(family, "half", given, mode, name=name)
    else:
        ends = tuple(tokens * i for i in range(samples + 1)) if batch == "pack" else (0, tokens)
        given = static_program.Batch(batch, ends, samples, 0, grids)
        targets = samples * tokens - given.image_tokens(family)
        given = static_program.Batch(batch, ends, samples, targets, grids)
        step = static_program.make_step(family, level, given, "full" if mode == "step" else mode, name=name)
    ledger = Ledger(step)
    works = [(one.name, one.phase, *one[3:]) for one in ledger.works]
    trained = [one for one, _ in step.gradients or () if not one.stop_gradient]
    return {
        "works": [[*one, count] for one, count in Counter(works).items()],
        "kept": sum(held for part, held in ledger.kept.items() if part != "inputs"),
        "waits": 0,  # a program whose ops have to wait cannot be made
        "copies": 1 + step.card.constants,  # a batch comes in one piece
        "parameters": [math.prod(one.shape) for one in trained],
    }


def main() -> None:
    """Count what the file names."""
    spec = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    print(json.dumps({"cases": {" ".join(case): count(spec, *case) for case in spec["cases"]}}))


if __name__ == "__main__":
    main()
