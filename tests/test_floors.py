"""The floors of the house: a room imports only rooms that stand above it in the table of docs/design.md."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = re.findall(r"^\| `(\w+)(?:\.py|/)` \|", (ROOT / "docs/design.md").read_text("utf-8"), re.MULTILINE)
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "paddlemix").rglob("*.py"))
}
# Faces of what stands below them, imported only once they are used: `model.chat`, and the processors' public names.
# (`model.generate`, in models/base.py, needs no exception: `generation` stands above `models`.)
LAZY = {("paddlemix.models.vision_language", "chat"), ("paddlemix.processors", "models")}


def room_of(module):
    return f"{module}.__init__".split(".")[1]


def imports_of(module, source):
    """Our modules that a source text imports anywhere, in functions and for type checkers too."""
    nodes = list(ast.walk(ast.parse(source)))
    names = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{module}: relative imports are not followed"
            inside = {f"{node.module}.{name.name}" for name in node.names}
            names |= {name if name in MODULES else node.module for name in inside}
    return {name for name in names if name.split(".")[0] == "paddlemix" and (module, room_of(name)) not in LAZY}


IMPORTS = {module: imports_of(module, path.read_text("utf-8")) for module, path in MODULES.items()}


def from_below(module, names):
    return {f"{module} <- {name}" for name in names if ROOMS.index(room_of(name)) > ROOMS.index(room_of(module))}


def test_the_table_of_rooms_has_every_room_once():
    assert sorted(ROOMS) == sorted({room_of(module) for module in MODULES})


def test_no_room_imports_one_that_stands_below_it():
    bad = "paddlemix.files", "def f():\n  from paddlemix.datasets import collate"
    assert sum(map(len, IMPORTS.values())) > 500 and from_below(bad[0], imports_of(*bad))
    assert set().union(*(from_below(module, names) for module, names in IMPORTS.items())) == set()


def test_no_modules_import_one_another_in_a_circle():
    TopologicalSorter(IMPORTS).prepare()  # raises CycleError, which names the circle


def test_no_room_has_more_than_fifteen_files_side_by_side():
    folders = {path.parent for path in MODULES.values()} - {
        ROOT / "paddlemix/datasets/formats"
    }  # a list of like things
    counts = {folder: len({*folder.glob("*.py")} - {folder / "__init__.py"}) for folder in folders}
    assert len(counts) > 15 and {folder: count for folder, count in counts.items() if count > 15} == {}
