"""What Paddle's launcher, `paddle.distributed.launch`, tells the processes that it starts, and what it does not do.

It watches the processes of its own machine, and ends them where one fails. It does not take them along where it is
killed itself: each lives in a session of its own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from paddlemix._environment import LOCAL_SIZE_VARIABLE

# <linux/prctl.h>: the signal that a process gets when its parent dies. A forked child does not inherit it.
_SET_PARENT_DEATH_SIGNAL = 1
# Seconds: more than it takes to see which rank is lost, to say so and to end this process (`peers`).
_ABORT_LATE = 10


def end_with_launcher() -> None:
    """Let the system send this process a SIGTERM when the launcher dies; only Linux can.

    In training that saves a checkpoint, before and after it ends the process at once. Without a launcher nothing
    changes: who closes the shell that has started a run may want it to go on.
    """
    if LOCAL_SIZE_VARIABLE in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, int(signal.SIGTERM))


# Set once this process is about to abort; its other threads may end it with a better word.
aborting = threading.Event()


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _wait_before_aborting(number: int) -> None:
    aborting.set()
    time.sleep(_ABORT_LATE)


def abort_late() -> None:
    """Let an abort of this process wait for some seconds, in which its other threads run.

    A collective that loses another rank within a backward pass aborts, and holds Python's lock while it does. But the
    launcher, which looks at its processes every second, reports the first of them that it finds ended, by rank: that
    should be the one that was lost, and this one has to say which it was.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).signal(int(signal.SIGABRT), _wait_before_aborting)


def log_file(environ: Mapping[str, str]) -> Path | None:
    """Find where the launcher writes what a process prints.

    Args:
        environ: the environment of the process.

    Returns:
        The file; None where no launcher has started the process.
    """
    folder, place = environ.get("PADDLE_LOG_DIR"), environ.get("PADDLE_RANK_IN_NODE")
    return Path(folder) / f"workerlog.{place}" if folder and place else None


def first_host(environ: Mapping[str, str]) -> str:
    """Find the address under which all processes reach the first one; Paddle takes it from the same places.

    Args:
        environ: the environment of the process.

    Returns:
        The name or IPv4 address.

    Raises:
        ValueError: there is more than one process, but no launcher has said where the first one is.
    """
    if "MASTER_ADDR" in environ and "MASTER_PORT" in environ:
        return environ["MASTER_ADDR"]
    endpoint = environ.get("PADDLE_MASTER") or environ.get("PADDLE_TRAINER_ENDPOINTS")
    if not endpoint:
        raise ValueError(
            "PADDLE_TRAINERS_NUM asks for several processes, but neither PADDLE_MASTER nor PADDLE_TRAINER_ENDPOINTS "
            "says where the first one is. Start them with `python -m paddle.distributed.launch`."
        )
    return endpoint.split(",")[0].split(":")[0]
