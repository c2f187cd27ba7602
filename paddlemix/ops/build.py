"""Where the libraries of `external_ops` are; to find them needs no Paddle."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass, field
from functools import cache
from importlib import util
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

PACKAGE = "paddlemix_external_ops"
# Set to "reference", every op is computed in its readable form.
CHOICE_VARIABLE = "PADDLEMIX_OPS"
# Goes up with every change of what Python calls: names, inputs and attributes. `external_ops/setup.py` has the same.
INTERFACE = 9
# Likewise of the ops for CUDA alone, so that a build for the CPU stays good where only they have changed.
CUDA_INTERFACE = 3
BUILD_COMMAND = "cd external_ops && python setup.py install"


@dataclass(frozen=True)
class Build:
    """What was found.

    Attributes:
        reason: why there are no built ops; "" where there are.
        folder: of the libraries.
        about: what the build says of itself; names of the libraries by kind among it.
    """

    reason: str = ""
    folder: Path = Path()
    about: dict[str, Any] = field(default_factory=dict)


def find_build() -> Build:
    """Find the build of this Python, unless the user asks for the reference."""
    if os.environ.get(CHOICE_VARIABLE) == "reference":
        return Build(f"{CHOICE_VARIABLE}=reference is set")
    spec = util.find_spec(PACKAGE)
    if spec is None or not spec.origin:
        return Build(f"they are not built: {BUILD_COMMAND}")
    return read_build(Path(spec.origin).parent)


def read_build(folder: Path) -> Build:
    """Read what the build in a folder says of itself once it is finished."""
    about = folder / "built.json"
    if not about.is_file():
        return Build(f"the build in {folder} is unfinished, build again: {BUILD_COMMAND}")
    found = json.loads(about.read_text(encoding="utf-8"))
    if found.get("interface") != INTERFACE:
        return Build(f"the build in {folder} is of another version of paddlemix, build again: {BUILD_COMMAND}")
    return Build(folder=folder, about=found)


@cache
def warn_once(reason: str, place: str = "CPU") -> None:
    """Warn once a process that ops are computed in their readable form, unless the user asked for that.

    Args:
        reason: why.
        place: that they would be computed on, "CPU" or "CUDA".
    """
    if os.environ.get(CHOICE_VARIABLE) != "reference":
        cost = "models and images take several times as long" if place == "CPU" else "models are slower"
        logger.warning("The fused %s ops are not used, %s: %s", place, cost, reason)
