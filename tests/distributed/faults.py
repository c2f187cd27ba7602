"""The tool, and something that goes wrong in a rank of it: faults.py RANK FAULT STEP CONFIG.json [--key value ...]."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paddlemix  # isort: skip - before Paddle, which it prepares for
from paddlemix.tools import supervised_finetune
from paddlemix.tools.report_errors import report_errors
from paddlemix.training import checkpointing
from paddlemix.training import sft as sft_trainer

del paddlemix

Fault = Callable[[int, int], None]


def install(rank: str, fault: str, step: str) -> None:
    """Let it come in that step of that rank."""
    if os.environ["PADDLE_TRAINER_ID"] == rank:
        FAULTS[fault](int(step))


def _in_step(happen: Callable[[Any], None]) -> Callable[[int], None]:
    def install(step: int) -> None:
        trainer, whole = sft_trainer.SFTTrainer, sft_trainer.SFTTrainer.training_step

        def training_step(self: Any, model: Any, inputs: Any) -> Any:
            if self.state.global_step + 1 == step:
                happen(self)
            return whole(self, model, inputs)

        trainer.training_step = training_step

    return install


def _in_save(happen: Callable[[Path], None]) -> Callable[[int], None]:
    """Between the files of a rank's part."""

    def install(step: int) -> None:
        whole = checkpointing.save_random_states

        def save_random_states(path: Path) -> None:
            if path.parent.name.startswith(f".checkpoint-{step}."):
                happen(path)
            whole(path)

        checkpointing.save_random_states = save_random_states

    return install


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _be_stopped(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _ask_to_stop(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _die_writing(path: Path) -> None:
    path.write_text("{")
    _die()


def _find_no_room(path: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _pause(trainer: Any) -> None:
    """Until somebody deletes the file that says so."""
    paused = Path(trainer.args.output_dir) / "paused"
    paused.touch()
    while paused.exists():
        time.sleep(0.02)


FAULTS = {
    "dies in step": _in_step(_die),
    "pauses in step": _in_step(_pause),
    "is stopped in step": _in_step(_be_stopped),
    "is asked to stop in step": _in_step(_ask_to_stop),
    "dies in save": _in_save(_die_writing),
    "has no room in save": _in_save(_find_no_room),
}

if __name__ == "__main__":
    install(*sys.argv[1:4])
    with report_errors():
        supervised_finetune.main(sys.argv[4:])
