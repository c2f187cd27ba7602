"""What a process takes from its launcher, and what happens without one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paddlemix.distributed.launcher import first_host, log_file

# A parent that starts the child below and is gone as soon as the child has asked the system for its signal.
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
child.stdout.readline()
print(child.pid, flush=True)
"""
CHILD = """
import time
from paddlemix.distributed.launcher import end_with_launcher
end_with_launcher()
print("ready", flush=True)
time.sleep(60)
"""


def child_of_dead_parent(environment: dict[str, str]) -> int:
    ended = subprocess.run(
        [sys.executable, "-c", PARENT, CHILD], capture_output=True, text=True, timeout=200, check=True, env=environment
    )
    return int(ended.stdout)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
@pytest.mark.parametrize("is_launched", [True, False])
def test_a_rank_ends_with_its_launcher_and_another_process_outlives_its_parent(is_launched: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PADDLE_LOCAL_SIZE"}
    pid = child_of_dead_parent(environment | ({"PADDLE_LOCAL_SIZE": "2"} if is_launched else {}))
    try:
        deadline = time.monotonic() + (30 if is_launched else 0.5)
        while is_running(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert is_running(pid) is not is_launched
    finally:
        if is_running(pid):
            os.kill(pid, signal.SIGKILL)


def test_the_log_is_where_the_launcher_writes_it() -> None:
    assert log_file({"PADDLE_LOG_DIR": "/log", "PADDLE_RANK_IN_NODE": "3"}) == Path("/log/workerlog.3")
    assert log_file({"PADDLE_RANK_IN_NODE": "3"}) is None


@pytest.mark.parametrize(
    ("environ", "host"),
    [
        ({"PADDLE_MASTER": "10.0.0.1:8090", "PADDLE_TRAINER_ENDPOINTS": "10.0.0.2:1,10.0.0.3:2"}, "10.0.0.1"),
        ({"PADDLE_TRAINER_ENDPOINTS": "10.0.0.2:1,10.0.0.3:2"}, "10.0.0.2"),
        ({"MASTER_ADDR": "node-a", "MASTER_PORT": "1", "PADDLE_MASTER": "10.0.0.1:8090"}, "node-a"),
    ],
)
def test_the_first_rank_is_found_where_paddle_looks_for_it(environ: dict[str, str], host: str) -> None:
    assert first_host(environ) == host


def test_several_processes_without_a_launcher_are_told_what_starts_them() -> None:
    with pytest.raises(ValueError, match=r"Start them with `python -m paddle\.distributed\.launch`"):
        first_host({})
