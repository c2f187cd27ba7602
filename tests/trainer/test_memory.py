"""Memory is watched, with pauses."""

from __future__ import annotations

import threading
import time

import numpy as np

from paddlemix.trainer.memory import INTERVAL, SamplingMemoryTracker


def test_the_peak_of_a_stage_is_seen_though_it_is_gone_at_the_end() -> None:
    tracker = SamplingMemoryTracker()
    tracker.peak_monitoring = True
    thread = threading.Thread(target=tracker.peak_monitor_func)
    thread.start()
    before = tracker.cpu_mem_used()
    held = np.ones(200 * 2**17)  # 200 MB
    time.sleep(4 * INTERVAL)
    del held
    tracker.peak_monitoring = False
    thread.join()
    assert tracker.cpu_mem_used_peak - before > 150 * 2**20


def test_memory_is_asked_for_about_once_an_interval() -> None:
    tracker = SamplingMemoryTracker()
    asked: list[None] = []
    tracker.cpu_mem_used = lambda: asked.append(None) or 0
    tracker.peak_monitoring = True
    thread = threading.Thread(target=tracker.peak_monitor_func)
    thread.start()
    time.sleep(6 * INTERVAL)
    tracker.peak_monitoring = False
    thread.join()
    assert 2 <= len(asked) <= 9
