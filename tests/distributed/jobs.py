"""Jobs started by Paddle's launcher, which a test may signal while they run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

POLL = 0.05
# Seconds that a job may take to end, once a rank, a node or its launcher has died.
SOON = 60

FAULTS = Path(__file__).with_name("faults.py")


@dataclass
class Job:
    """A launcher and the ranks that it has started.

    Attributes:
        process: the launcher.
        folder: where it runs; what it prints is in the file `said`, what each rank prints below `log`.
    """

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text("utf-8", "replace")

    def log(self, rank: int) -> str:
        """What a rank of this machine has printed; local numbers."""
        return (self.folder / "log" / f"workerlog.{rank}").read_text("utf-8", "replace")

    def ranks(self) -> list[int]:
        """The process ids of the ranks; to be asked for while the launcher is alive."""
        pid = self.process.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def wait(self, timeout: float = SOON) -> int:
        """The exit code; the test fails with what was said where the job takes longer."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the job goes on after {timeout} s:\n{self.said[-5000:]}")

    def wait_until(self, happened: Callable[[], bool], timeout: float = 200) -> None:
        """Wait for something while the job runs."""
        deadline = time.monotonic() + timeout
        while not happened():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"it did not happen; the job has ended with {self.process.poll()}:\n{self.said[-5000:]}")
            time.sleep(POLL)

    def end(self) -> None:
        """Leave nothing running behind a test that failed."""
        if self.process.poll() is None:
            for pid in (*self.ranks(), self.process.pid):
                os.kill(pid, signal.SIGKILL)
            self.process.wait()


def start(folder: Path, words: list[str], environment: Mapping[str, str]) -> Job:
    """Start a launcher in a folder of its own."""
    folder.mkdir(exist_ok=True)
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(words, cwd=folder, env=dict(environment), stdout=said, stderr=subprocess.STDOUT)
    return Job(process, folder)


def launcher(*options: object) -> list[str]:
    """The beginning of a command line."""
    return [sys.executable, "-u", "-m", "paddle.distributed.launch", *map(str, options)]


def faulty(rank: int, fault: str, step: int, *arguments: object) -> list[str]:
    """The end of a command line: the tool with a fault."""
    return [str(FAULTS), str(rank), fault, str(step), *map(str, arguments)]


def is_running(pid: int) -> bool:
    """Whether a process is there; one that has ended and that nobody has asked about is not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
