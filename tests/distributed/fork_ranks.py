"""Runs jobs of two ranks without the launcher, one job after the other: fork_ranks.py JOBS.json.

The ranks are forked from this process, which has imported all but computed nothing, so a job takes seconds. Nobody ends
a rank because another one has died. JOBS.json lists objects like {"log": folder, "fault": [rank, fault, step] or null,
"arguments": [[of rank 0], [of rank 1]]}; printed are the ranks' exit codes and the seconds, a line a job.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import faults  # isort: skip - beside this file; imports paddlemix, and that before Paddle
from paddle.distributed import parallel

from paddlemix.distributed import peers
from paddlemix.tools import supervised_finetune
from paddlemix.tools.report_errors import report_errors
from paddlemix.training import plan  # what the tool itself imports late

del plan

TIMEOUT = 100
FORK = multiprocessing.get_context("fork")


def run(job: dict[str, Any]) -> tuple[list[int | None], float]:
    """Exit codes and seconds."""
    began = time.monotonic()
    endpoints = [f"127.0.0.1:{free_port()}" for _ in job["arguments"]]
    ranks = [FORK.Process(target=be_rank, args=(rank, endpoints, job)) for rank in range(len(endpoints))]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        while rank.is_alive() and not is_stopped(rank.pid) and time.monotonic() - began < TIMEOUT:
            rank.join(0.1)
        rank.kill()
        rank.join()
    return [rank.exitcode for rank in ranks], time.monotonic() - began


def is_stopped(process: int) -> bool:
    """Whether a process waits for SIGCONT."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def be_rank(rank: int, endpoints: list[str], job: dict[str, Any]) -> None:
    """What a rank does: the launcher's environment, its log, the tool."""
    os.environ |= {
        "PADDLE_TRAINER_ID": str(rank),
        "PADDLE_RANK_IN_NODE": str(rank),
        "PADDLE_LOCAL_SIZE": str(len(endpoints)),
        "PADDLE_TRAINERS_NUM": str(len(endpoints)),
        "PADDLE_MASTER": endpoints[0],
        "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
        "PADDLE_CURRENT_ENDPOINT": endpoints[rank],
        "PADDLE_LOG_DIR": job["log"],
    }
    parallel._global_parallel_env = None  # what Paddle has read of the environment at its import
    Path(job["log"]).mkdir(parents=True, exist_ok=True)
    log = os.open(Path(job["log"]) / f"workerlog.{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    peers._LAUNCHER_FIRST = 1  # there is none
    if job["fault"]:
        faults.install(*map(str, job["fault"]))
    with report_errors():
        supervised_finetune.main(job["arguments"][rank])


if __name__ == "__main__":
    for job in json.loads(Path(sys.argv[1]).read_text("utf-8")):
        print(json.dumps(run(job)), flush=True)
