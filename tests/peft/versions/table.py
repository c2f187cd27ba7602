"""Print the table of docs/adapters.md from what make_adapter_versions.py found.

python tests/peft/versions/table.py
"""

from __future__ import annotations

import json
from pathlib import Path

MATRIX = Path(__file__).parents[2] / "fixtures" / "adapters" / "matrix.json"
OURS = {"ours": "paddlemix", "ours_before_4.52": "`rename_adapter.py --transformers before_4.52`"}
# What says nothing of the adapter.
_NOT_THERE = "has no attribute Qwen2_5_VL"


def table() -> str:
    """Tell by writer who reads it: rows of Markdown."""
    matrix = json.loads(MATRIX.read_text("utf-8"))
    readers = list(matrix)
    rows = [["written by", *readers, "paddlemix"], ["---"] * (len(readers) + 2)]
    for writer in next(iter(matrix.values())):
        cells = [cell(matrix[reader][writer]) for reader in readers]
        rows.append([OURS.get(writer, f"transformers {writer}"), *cells, "yes"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def cell(found: dict[str, str]) -> str:
    """Say in a word what becomes of an adapter."""
    words = [one for one in found.values() if _NOT_THERE not in one]
    if not words:
        return "yes"
    return "error" if all("Error" in one for one in words) else "no"


if __name__ == "__main__":
    print(table())
