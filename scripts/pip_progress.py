"""Runs pip with its output in a log, and shows in one line how far it is.

pip says nothing while it unpacks, which takes half of the time; the packages that appear on disk tell.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import List

TERMINAL_SECONDS, LOG_SECONDS = 0.5, 15  # between two progress lines
CHOSEN = ("Collecting ", "Requirement already satisfied: ")
PLAN = "Installing collected packages:"


def run_pip(arguments: List[str], venv: Path) -> int:
    """Run the environment's pip in the environment's parent folder.

    Args:
        arguments: what comes after `pip`.
        venv: the environment; the log becomes `pip.log` in it.

    Returns:
        pip's exit status.
    """
    command = [str(venv / "bin" / "python"), "-m", "pip", *arguments]
    with (venv / "pip.log").open("wb") as log:
        pip = subprocess.Popen(command, cwd=str(venv.parent), stdout=log, stderr=subprocess.STDOUT)
        try:
            return wait_with_progress(pip, venv)
        finally:
            pip.kill()


def wait_with_progress(pip: subprocess.Popen, venv: Path) -> int:
    """Show progress until pip ends.

    Returns:
        pip's exit status.
    """
    start = time.time()
    terminal = sys.stdout.isatty()
    while True:
        try:
            return pip.wait(timeout=TERMINAL_SECONDS if terminal else LOG_SECONDS)
        except subprocess.TimeoutExpired:
            text = describe(read_log(venv), count_unpacked(venv, since=start))
            print(f"  {time.time() - start:3.0f} s: {text:<40}", end="\r" if terminal else "\n", flush=True)


def describe(log: str, unpacked: int) -> str:
    """How far pip is, in a few words.

    Args:
        log: what pip has written so far.
        unpacked: packages that appeared on disk since it began.
    """
    lines = log.splitlines()
    plan = [line for line in lines if line.startswith(PLAN)]
    if not plan:
        return f"found {sum(line.startswith(CHOSEN) for line in lines)} packages"
    total = plan[-1].count(",") + 1
    return f"installed {min(unpacked, total)} of {total} packages"


def read_log(venv: Path) -> str:
    """What pip has written so far."""
    return (venv / "pip.log").read_text(encoding="utf-8", errors="replace")


def count_unpacked(venv: Path, since: float) -> int:
    """Packages that appeared in the environment since a time in seconds."""
    return sum(path.stat().st_mtime >= since for path in venv.glob("lib/python*/site-packages/*.dist-info"))
