"""What tests of the build of the fused ops share."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SETUP = Path(__file__).parents[2] / "external_ops" / "setup.py"


@pytest.fixture
def build() -> ModuleType:
    """The script that builds the ops, as a module; what it finds out is found out anew."""
    spec = importlib.util.spec_from_file_location("external_ops_setup", SETUP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
