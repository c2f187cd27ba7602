"""Watching a run's memory without slowing the run, and keeping it small."""

from __future__ import annotations

import time
from typing import Any

import paddle
import psutil
from paddlenlp.trainer import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from paddlenlp.trainer.trainer_utils import TrainerMemoryTracker

from paddlemix._environment import give_back_freed_memory

INTERVAL = 0.05


class SamplingMemoryTracker(TrainerMemoryTracker):
    """PaddleNLP's tracker with pauses.

    Its own thread asks for the memory in use without a pause, and holds Python's lock for half of the time: a training
    step of the demo took twice as long.

    Args:
        skip_memory_metrics: watch nothing.
    """

    def __init__(self, skip_memory_metrics: bool = False) -> None:
        super().__init__(skip_memory_metrics)
        # The trainer's making is watched by the tracker that this one replaces; there are no figures of it to report.
        self.init_reported = True

    def peak_monitor_func(self) -> None:
        """Keep the largest resident size, in bytes, until monitoring ends."""
        self.cpu_mem_used_peak = self.cpu_mem_used()
        while self.peak_monitoring:
            time.sleep(INTERVAL)
            self.cpu_mem_used_peak = max(self.cpu_mem_used(), self.cpu_mem_used_peak)


class FreedMemory(TrainerCallback):
    """Gives memory back to the system that the first steps have left fragmented."""

    def __init__(self) -> None:
        self._steps = 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count the steps of this process."""
        self._steps += 1
        give_back_freed_memory(self._steps)


def memory_in_use() -> int:
    """Count the bytes that this process holds: what Paddle reserves on its GPU, or without a GPU, the CPU's."""
    if paddle.get_device().startswith("gpu"):
        return paddle.device.cuda.memory_reserved()
    return psutil.Process().memory_info().rss
