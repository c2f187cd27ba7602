"""Which built ops a training step on a GPU asks for, and with which dtypes: the table of docs/gpu.md.

`python -m tests.gpu.asked_ops` makes the table anew, from the static programs of `static_program.py`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "gpu.md"
ADVICE = "docs/gpu.md says something else; where the page is to follow: python -m tests.gpu.asked_ops"
FAMILIES = ("qwen", "qwen2_vl", "qwen2_5_vl")
LEVELS = ("O1", "O2")
HEADING = "| op | level | " + " | ".join(f"`{family}`" for family in FAMILIES) + " |\n|---|---|---|---|---|\n"
SHORT = {"float32": "f32", "bfloat16": "bf16"}
LEFT = "*"  # behind what is left to Paddle's own kernels

# By op, the dtypes of its inputs in their order, and whether it takes them.
Asked = dict[str, set[tuple[str, bool]]]


def asked_of(found: Iterable[Any]) -> Asked:
    """Sort what a card was asked, of which each is an op, dtypes, whether it takes them, and how often."""
    asked: Asked = {}
    for op, dtypes, takes, _ in found:
        asked.setdefault(op, set()).add((dtypes, takes))
    return asked


def table(asked: dict[tuple[str, str], Asked]) -> str:
    """Write the table.

    Args:
        asked: by family and level.

    Returns:
        Its lines.
    """
    lines = HEADING
    for op in sorted({op for one in asked.values() for op in one}):
        for level in LEVELS:
            cells = [_cell(asked[family, level].get(op, set())) for family in FAMILIES]
            lines += f"| `{op}` | {level} | {' | '.join(cells)} |\n"
    return lines


def read_page() -> dict[tuple[str, str], Asked]:
    """Read the table of the page, by family and level."""
    names = {short: dtype for dtype, short in SHORT.items()}
    asked: dict[tuple[str, str], Asked] = {(family, level): {} for family in FAMILIES for level in LEVELS}
    for line in PAGE.read_text("utf-8").partition(HEADING)[2].partition("\n\n")[0].splitlines():
        op, level, *cells = (cell.strip().strip("`") for cell in line.strip("|").split("|"))
        for family, cell in zip(FAMILIES, cells, strict=True):
            for words in filter(None, cell.split(", ")):
                dtypes = " ".join(names[word] for word in words.removesuffix(LEFT).split())
                asked[family, level].setdefault(op, set()).add((dtypes, not words.endswith(LEFT)))
    return asked


def _cell(asked: set[tuple[str, bool]]) -> str:
    written = ((" ".join(SHORT[dtype] for dtype in dtypes.split()), takes) for dtypes, takes in sorted(asked))
    return ", ".join(dtypes + ("" if takes else LEFT) for dtypes, takes in written)


def main() -> None:
    """Write the table into the page."""
    from .test_static_program import programs  # makes them, in processes of their own

    asked = {
        (family, level): asked_of(programs(family)[f"{level}-pack-full-built-2"]["asked"])
        for family in FAMILIES
        for level in LEVELS
    }
    page = PAGE.read_text("utf-8")
    there = re.search(re.escape(HEADING) + r"(\|.*\n)*", page)
    if there is None:
        sys.exit(f"{PAGE} has no table with the heading {HEADING.splitlines()[0]}")
    PAGE.write_text(page[: there.start()] + table(asked) + page[there.end() :], "utf-8")


if __name__ == "__main__":
    main()
