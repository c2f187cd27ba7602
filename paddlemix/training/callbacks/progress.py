"""What a run shows while it trains: a bar with rate and ETA, and a line for each log."""

from __future__ import annotations

import sys
import time
from typing import Any

from paddlenlp.trainer import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from tqdm import tqdm

# How each figure of a log is shown, in this order.
_SHOWN = {
    "loss": "loss {:.4g}",
    "eval_loss": "eval_loss {:.4g}",
    "learning_rate": "learning_rate {:.4g}",
    "tokens_per_second": "{:,.0f} tokens/s",
    "images_per_second": "{:.3g} images/s",
    "padding": "padding {:.0%}",
    "memory_gib": "{:.3g} GiB",
}
_SPEED = {"interval_samples_per_second": "{:.4g} samples/s"}


class StepLog(TrainerCallback):
    """Logs the last step and each that is saved.

    PaddleNLP adds what was not logged to the run's mean loss from one rank alone, and a run that goes on from a
    checkpoint does not know it.
    """

    def __init__(self) -> None:
        self._logged = 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask for a log."""
        control.should_log = control.should_log or control.should_save or state.global_step >= state.max_steps

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a log, unless the step's end had it logged: PaddleNLP would log a loss of 0 for no steps."""
        control.should_log = (control.should_log or control.should_save) and self._logged < state.global_step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Remember up to which step losses are logged."""
        if logs and "loss" in logs:
            self._logged = state.global_step


class ProgressBar(TrainerCallback):
    """A tqdm bar on a terminal; without one, lines with the step, the rate and the time left.

    Args:
        show_speed: add the samples a second since the last log.
        is_wanted: show lines on a terminal too where it is false.
    """

    def __init__(self, *, show_speed: bool, is_wanted: bool = True) -> None:
        self.is_wanted = is_wanted
        self.shown = _SHOWN | (_SPEED if show_speed else {})
        self.bar: tqdm | None = None
        self.started = 0.0
        self.first_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar."""
        if not state.is_world_process_zero:
            return
        self.started, self.first_step = time.monotonic(), state.global_step
        if sys.stderr.isatty() and self.is_wanted:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="training", unit="step")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the losses: beside the bar, or in a line."""
        if not (state.is_world_process_zero and logs):
            return
        figures = "  ".join(text.format(logs[name]) for name, text in self.shown.items() if name in logs)
        if not figures:
            return
        if self.bar is not None:
            self.bar.set_postfix_str(figures)
        else:
            print(
                f"step {state.global_step}/{state.max_steps}  {figures}  {self._pace(state)}",
                file=sys.stderr,
                flush=True,
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()

    def _pace(self, state: TrainerState) -> str:
        seconds = time.monotonic() - self.started
        steps = max(state.global_step - self.first_step, 1)
        left = seconds / steps * (state.max_steps - state.global_step)
        return f"{steps / max(seconds, 1e-9):.2f} steps/s  {tqdm.format_interval(left)} left"
