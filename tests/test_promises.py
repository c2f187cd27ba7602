"""What pages and docstrings promise of equal runs is said of the CPU: a card adds gradients up in no fixed order."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
EQUAL = re.compile(
    r"\bbit[- ](?:by|for)[- ]bit\b|\bbit-equal\b|\bbitwise\b|\bthe same bits\b|\bto the (?:last )?bit\b", re.I
)
# Words of training; files and images are read bit by bit on any device.
TRAINING = re.compile(
    r"\bgoes on\b|\bresum|\bgradients?\b|\bprocess(?:es)? of one launcher\b|\bcards?\b|\bruns? that\b", re.I
)


def passages() -> Iterator[tuple[str, str]]:
    """Paragraphs, items and table rows of pages, and docstrings, with the file they stand in."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for passage in re.split(r"\n\s*\n|\n(?=[|-] )|\n(?=\|)", page.read_text("utf-8")):
            yield page.name, " ".join(passage.split())
    for file in sorted((ROOT / "paddlemix").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (text := ast.get_docstring(node)):
                yield file.relative_to(ROOT).as_posix(), " ".join(text.split())


def test_what_is_equal_bit_by_bit_in_training_is_said_of_the_cpu() -> None:
    found = [(file, text) for file, text in passages() if EQUAL.search(text) and TRAINING.search(text)]
    assert {"finetune.md", "safety.md", "paddlemix/models/layers/recompute.py"} <= {file for file, _ in found}
    assert [(file, text) for file, text in found if "CPU" not in text] == []


def test_the_page_of_going_on_says_what_makes_a_card_repeat_itself() -> None:
    page = (ROOT / "docs" / "finetune.md").read_text("utf-8")
    _, _, rest = page.partition("## Stopping and going on")
    section, _, _ = rest.partition("\n## ")
    assert "FLAGS_cudnn_deterministic" in section and "FLAGS_embedding_deterministic" in section
