"""Starting several processes that train together, on gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pytest

ROOT = Path(__file__).parents[2]
RUN_PATCHED = Path(__file__).with_name("run_patched.py")


class Launch(Protocol):
    """Runs a script in several processes and waits for them; see `launch`."""

    def __call__(
        self, script: Path, *arguments: object, ranks: int = 2, patched: bool = True, timeout: float = 300
    ) -> list[str]: ...


def environment(**more: str) -> Mapping[str, str]:
    """What a process needs to train on gloo, with one thread: the machine's cores are shared by the ranks.

    An empty CUDA_VISIBLE_DEVICES, which often stands for no GPUs, breaks Paddle's launcher.
    """
    kept = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    ours = {"OMP_NUM_THREADS": "1", "PADDLE_DISTRI_BACKEND": "gloo", "PYTHONPATH": path}
    return {**kept, **ours, **more}


def command(script: Path, *arguments: object, logs: Path, ranks: int = 2, patched: bool = True) -> list[str]:
    """The launcher's command line.

    Args:
        script: what each rank runs.
        *arguments: of the script.
        logs: folder for `workerlog.<rank>`.
        ranks: how many processes.
        patched: bring what Paddle's CPU build lacks (`run_patched.py`); without it the script runs as users run it.

    Returns:
        The words.
    """
    launcher = [sys.executable, "-u", "-m", "paddle.distributed.launch", "--nproc_per_node", str(ranks)]
    launcher += ["--log_dir", str(logs)]
    return [*launcher, *([str(RUN_PATCHED)] if patched else []), str(script), *map(str, arguments)]


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """Run a script in several processes; returns what each rank said, and fails with it where one failed."""

    def run(script: Path, *arguments: object, ranks: int = 2, patched: bool = True, timeout: float = 300) -> list[str]:
        logs = tmp_path_factory.mktemp("logs")
        words = command(script, *arguments, logs=logs, ranks=ranks, patched=patched)
        ended = subprocess.run(
            words, env=environment(), capture_output=True, text=True, timeout=timeout, check=False, cwd=ROOT
        )
        said = [path.read_text("utf-8", "replace") for path in sorted(logs.glob("workerlog.*"))]
        told = "\n".join(f"--- rank {rank}\n{text[-5000:]}" for rank, text in enumerate(said))
        assert ended.returncode == 0 and len(said) == ranks, told or ended.stderr[-5000:]
        return said

    return run


@pytest.fixture(scope="session")
def checked(launch: Launch) -> list[str]:
    """What each of two ranks said that ran the files `check_*.py`, as users run a script."""
    return launch(Path(__file__).with_name("run_checks.py"), patched=False)
