"""SIGTERM while a run trains: the step is finished, a checkpoint saved, and the process ends with a code of its own."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import paddle
from paddlenlp.trainer import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

# "Try again later" of BSD's sysexits.h. Not 143, which a shell shows for a process that SIGTERM killed without a save.
EXIT_CODE = 75

logger = logging.getLogger(__name__)


class Interruption(TrainerCallback):
    """Ends training at the end of the step in which SIGTERM came, with a checkpoint.

    Attributes:
        has_ended_training: whether it did.
    """

    has_ended_training: bool

    def __init__(self) -> None:
        self.has_ended_training = False
        self._is_asked_for = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take SIGTERM while the block runs; one that came too late for another step kills the process after it."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Python handles signals in the main thread alone
            return
        earlier = signal.signal(signal.SIGTERM, self._ask)
        # Else a read that it comes into fails, of Paddle's store for one.
        signal.siginterrupt(signal.SIGTERM, False)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, earlier)
        if self._is_asked_for and not self.has_ended_training:
            signal.raise_signal(signal.SIGTERM)

    def exit(self) -> NoReturn:
        """End the process with its code; signals that come now, as launchers send them several times, are ignored."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(EXIT_CODE)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save and stop where any rank was asked to."""
        if self._any_rank_is_asked(args.world_size):
            self.has_ended_training = True
            logger.warning("SIGTERM: step %d is saved, then the process ends with %d.", state.global_step, EXIT_CODE)
            control.should_save = True
            control.should_training_stop = True

    def _ask(self, *signal_and_frame: object) -> None:
        self._is_asked_for = True

    def _any_rank_is_asked(self, world: int) -> bool:
        """Ask all ranks: signals reach them at different moments, perhaps in different steps; all stop together."""
        if world <= 1:
            return self._is_asked_for
        asked = paddle.to_tensor(int(self._is_asked_for), dtype="int32")
        paddle.distributed.all_reduce(asked, paddle.distributed.ReduceOp.MAX)
        return bool(asked.item())
