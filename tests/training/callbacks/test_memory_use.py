"""Memory is watched, with pauses."""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from paddlemix.training.callbacks.memory_use import INTERVAL, SamplingMemoryTracker

LONG = 60.0  # seconds; only a watcher that has stopped takes so long


class WatchedTracker(SamplingMemoryTracker):
    """Counts how often memory was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Semaphore(0)

    def cpu_mem_used(self) -> int:
        used = super().cpu_mem_used()
        self.asked.release()
        return used

    def wait_for(self, times: int) -> None:
        for _ in range(times):
            assert self.asked.acquire(timeout=LONG)


@contextmanager
def watching() -> Iterator[WatchedTracker]:
    tracker = WatchedTracker()
    tracker.peak_monitoring = True
    thread = threading.Thread(target=tracker.peak_monitor_func)
    thread.start()
    try:
        yield tracker
    finally:
        tracker.peak_monitoring = False
        thread.join()


def test_the_peak_of_a_stage_is_seen_though_it_is_gone_at_the_end() -> None:
    with watching() as tracker:
        tracker.wait_for(1)
        before = tracker.cpu_mem_used()
        # Not malloc's: it may hand out what earlier tests have freed, and the process does not grow.
        held = mmap.mmap(-1, 200 * 2**20)
        np.frombuffer(held, dtype=np.uint8)[:: mmap.PAGESIZE] = 1
        while tracker.asked.acquire(blocking=False):
            pass  # asked before all of it was there
        tracker.wait_for(2)
        held.close()
    assert tracker.cpu_mem_used_peak - before > 150 * 2**20


def test_memory_is_asked_for_about_once_an_interval() -> None:
    begun = time.monotonic()
    with watching() as tracker:
        tracker.wait_for(6)
    # Never sooner, whatever else the machine does.
    assert time.monotonic() - begun >= 4 * INTERVAL
