"""Runs a script as if by itself, with what Paddle's CPU build lacks: python run_patched.py SCRIPT ARGUMENT ...

Every module of patches/ brings something, by its `install()`.
"""

from __future__ import annotations

import importlib
import os
import runpy
import sys
from pathlib import Path

import paddlemix  # before Paddle, which it prepares for

# isort: split
import paddle

del paddlemix

PATCHES = Path(__file__).with_name("patches")


def install_patches() -> None:
    """Call all `install()`, in the order of the modules' names."""
    sys.path.insert(0, str(PATCHES.parent))
    for file in sorted(PATCHES.glob("[a-z]*.py")):
        importlib.import_module(f"patches.{file.stem}").install()


def leave() -> None:
    """End this process as soon as all others have come to their end.

    With the dozens of groups that the cases of one script make, gloo aborted once while Python took them down.
    """
    if paddle.distributed.is_initialized():
        paddle.distributed.barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    install_patches()
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).parent)  # as Python itself does for a script
    runpy.run_path(sys.argv[0], run_name="__main__")
    leave()
