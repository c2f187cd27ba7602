"""Runs a call in a forked process, and tells what became of it, how long it took and what memory it needed."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PAGE = os.sysconf("SC_PAGE_SIZE")
HEADROOM = 6 << 30  # of addresses: what asks for more is stopped before it takes the machine's memory
# What a refusal may take. It takes 50 ms; machines that run tests are slow at times.
SECONDS, BYTES = 1.0, 10 << 20


class Outcome(NamedTuple):
    """What became of a call.

    Attributes:
        kind: "accepted", "refused", "escaped" (another error), or "died" (killed, or out of time).
        told: the refusal or the error.
        seconds: of the processor that it took, which other work on the machine does not change.
        bytes: by which the process grew at most.
    """

    kind: str
    told: str
    seconds: float
    bytes: int


def resident() -> int:
    """Bytes of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def run(call: Callable[[], object], refusal: type[Exception] | tuple[type[Exception], ...], seconds: float) -> Outcome:
    """Run a call in a process of its own, which is killed when the time is up."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _answer(call, refusal, writing)
    os.close(writing)
    answer = b""
    ends = time.monotonic() + seconds
    while select.select([reading], [], [], max(ends - time.monotonic(), 0))[0] and (part := os.read(reading, 65536)):
        answer += part
    os.close(reading)
    if not answer.endswith(b"\n"):
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        return Outcome("died", f"status {status} within {seconds} s", seconds, 0)
    os.waitpid(child, 0)
    return Outcome(*json.loads(answer))


def refusal_of(call: Callable[[], object], refusal: type[Exception]) -> str:
    """Run a call in a process of its own, where it must be refused soon and without memory; return the sentence."""
    outcome = run(call, refusal, 20 * SECONDS)
    assert outcome.kind == "refused", outcome
    assert outcome.seconds < SECONDS and outcome.bytes <= BYTES, outcome
    assert outcome.told.endswith(".") and "\n" not in outcome.told, outcome
    return outcome.told


def _answer(call: Callable[[], object], refusal: type[Exception] | tuple[type[Exception], ...], pipe: int) -> None:
    kind, told = "escaped", ""
    before, start = resident(), time.process_time()
    try:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
        resource.setrlimit(resource.RLIMIT_AS, (size + HEADROOM, size + HEADROOM))
        # Counted anew: what the parent has needed is no growth of the child.
        Path("/proc/self/clear_refs").write_text("5")
        call()
        kind = "accepted"
    except refusal as error:
        kind, told = "refused", str(error)
    except BaseException as error:
        told = repr(error)
    finally:
        seconds = time.process_time() - start
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        grown = max(int(line.split()[1]) * 1024 - before, 0)
        os.write(pipe, json.dumps([kind, told, seconds, grown]).encode() + b"\n")
        os._exit(0)
