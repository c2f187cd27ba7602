"""The floors of the house: a room imports only rooms that stand above it in the table of docs/design.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "paddlemix"
ROOMS = re.findall(r"^\| `(\w+)(?:\.py|/)` \|", (ROOT / "docs/design.md").read_text("utf-8"), re.MULTILINE)
# Faces of what stands below them, imported only once they are used: `model.chat`, and the processors' public names.
# (`model.generate`, in models/base.py, needs no exception: `generation` stands above `models`.)
LAZY = {("paddlemix.models.qwen_vl.modeling", "chat"), ("paddlemix.processors", "models")}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def room_of(module: str) -> str:
    return f"{module}.__init__".split(".")[1]


def imports_of(source: str) -> set[str]:
    """Our modules that a source text imports anywhere, in functions and for type checkers too."""
    nodes = list(ast.walk(ast.parse(source)))
    names = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, "relative imports are not followed"
            inside = {f"{node.module}.{name.name}" for name in node.names}
            names |= {name if name in MODULES else node.module for name in inside}
    return {name for name in names if name.split(".")[0] == "paddlemix"}


IMPORTS = {
    module: {name for name in imports_of(path.read_text("utf-8")) if (module, room_of(name)) not in LAZY}
    for module, path in MODULES.items()
}


def imports_from_below(module: str, imported: Iterable[str]) -> list[str]:
    return [
        f"{module} imports {name}" for name in imported if ROOMS.index(room_of(name)) > ROOMS.index(room_of(module))
    ]


def test_the_table_of_rooms_has_every_room_once():
    assert sorted(ROOMS) == sorted({room_of(module) for module in MODULES})


def test_no_room_imports_one_that_stands_below_it():
    assert sum(map(len, IMPORTS.values())) > 500
    assert imports_from_below("paddlemix.files", imports_of("def f():\n  from paddlemix.datasets import collate"))
    assert [wrong for module, names in IMPORTS.items() for wrong in imports_from_below(module, names)] == []


def test_no_modules_import_one_another_in_a_circle():
    assert len(MODULES) > 200
    TopologicalSorter(IMPORTS).prepare()  # raises CycleError, which names the circle


def test_no_room_has_more_than_fifteen_files_side_by_side():
    folders = {path.parent for path in MODULES.values()} - {PACKAGE / "datasets/formats"}  # a list of like things
    counts = {folder: len(list(folder.glob("*.py"))) - (folder / "__init__.py").is_file() for folder in folders}
    assert len(counts) > 15 and {folder: count for folder, count in counts.items() if count > 15} == {}
