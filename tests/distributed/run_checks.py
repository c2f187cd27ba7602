"""Runs what is checked on two ranks, one file after the other in one process: starting ranks takes seconds."""

from __future__ import annotations

import runpy
from pathlib import Path

FILES = ("check_split_ops.py", "check_fused_adamw.py")

if __name__ == "__main__":
    for name in FILES:
        runpy.run_path(str(Path(__file__).with_name(name)), run_name="__main__")
