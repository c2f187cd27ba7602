"""Packages whose names are imported when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_attributes(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Make a package's `__getattr__` (PEP 562), so that importing it costs nothing until a name is used.

    Args:
        package: its `__name__`.
        modules: the module that has each of its names.

    Returns:
        A function of a name that gives what has it, and raises AttributeError where there is none.
    """

    def find(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    return find
