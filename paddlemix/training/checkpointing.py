"""PaddleNLP's Trainer with checkpoints that are complete or not there, and that hold all that a run goes on from.

With one process on the CPU it ends bit by bit as a run that was never stopped; on a GPU no two runs do, unless Paddle's
flags forbid backward passes that add in the order in which threads arrive (docs/finetune.md).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paddle import nn
from paddlenlp.trainer.trainer import TRAINER_STATE_NAME
from paddlenlp.trainer.trainer_utils import TrainOutput

from paddlemix.checkpoints.manifest import find_damage
from paddlemix.checkpoints.optimizer_state import load_optimizer, save_optimizer
from paddlemix.checkpoints.random_states import load_random_states, random_state_file, save_random_states
from paddlemix.checkpoints.resume_state import ResumeState
from paddlemix.checkpoints.store import CheckpointStore, new_run
from paddlemix.checkpoints.write_failure import write_failure
from paddlemix.distributed.ranks import from_first, gather_texts, wait_for_all
from paddlemix.distributed.sharding import is_cut, mend_stage3, whole_parameters, whole_parameters_to_fill
from paddlemix.ops.denormals import flushed_denormals
from paddlemix.training.callbacks.early_stopping import BestCheckpoint, EarlyStopping, note_best
from paddlemix.training.callbacks.finite_log import FiniteLog
from paddlemix.training.callbacks.interruption import Interruption
from paddlemix.training.paddlenlp_seams import SeamTrainer

logger = logging.getLogger(__name__)


class CheckpointingTrainer(SeamTrainer):
    """Saves and restores all that a run consists of.

    The model's files are written by `save_model` and read by `load_weights_of`; all else is the same whatever is
    trained. Every rank writes its part, and the first one publishes the checkpoint when all have.

    Args:
        *args: PaddleNLP's.
        early_stopping: None where training does not stop early.
        **kwargs: PaddleNLP's.

    Attributes:
        interruption: what SIGTERM does.
        store: the run's checkpoints.
        log_history: every log entry, those before a resume too; null for figures that are NaN or infinite.
    """

    interruption: Interruption
    store: CheckpointStore
    log_history: list[dict[str, float | None]]

    def __init__(self, *args: Any, early_stopping: EarlyStopping | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.interruption = Interruption()
        self.store = CheckpointStore(self.args.output_dir, run=from_first(new_run))
        self.log_history = []
        self._finite_log = FiniteLog()
        self._early_stopping = early_stopping
        self._earlier_loss = 0.0
        for callback in (BestCheckpoint(), self.interruption, *([early_stopping] if early_stopping else [])):
            self.add_callback(callback)

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> TrainOutput:
        """Train, from the start or from a checkpoint, until the end or a SIGTERM.

        Args:
            resume_from_checkpoint: its folder, known to be whole.
            **kwargs: PaddleNLP's.

        Returns:
            PaddleNLP's.

        Raises:
            OSError: a checkpoint cannot be written.
            ValueError: the checkpoint is of another run, or a loss or weight is NaN or inf.
        """
        if resume_from_checkpoint is not None:
            self.check_same_run(Path(resume_from_checkpoint))
        wait_for_all()  # one rank may have loaded faster than another, and what follows are collectives
        with self.interruption.watching(), self._best_model_at_end(), flushed_denormals():
            return super().train(resume_from_checkpoint, **kwargs)

    def check_same_run(self, checkpoint: Path) -> None:
        """Refuse a checkpoint of another run."""

    def write_run_files(self, folder: Path) -> None:
        """Write what else belongs to a checkpoint; the first rank does."""

    def log(self, logs: dict[str, float], **kwargs: Any) -> None:
        """Keep every log, which PaddleNLP's state does not, and count the steps before a resume into the mean loss.

        Of a figure that is NaN or infinite null is kept, and those who show logs do not get it.
        """
        if "train_loss" in logs:
            logs["train_loss"] += self._earlier_loss / max(self.state.global_step, 1)
        entry = self._finite_log.entry(logs, self.state.global_step)
        unsound = [name for name in entry if entry[name] is None]
        # Who logs what it has evaluated goes on with this object: figures stay in it.
        shown = {name: value for name, value in logs.items() if name not in unsound} if unsound else logs
        super().log(shown, **kwargs)
        self.log_history.append({"step": self.state.global_step, **shown, **dict.fromkeys(unsound)})

    def save_model(self, output_dir: str | None = None, merge_tensor_parallel: bool | None = False) -> None:
        """Write the model as one process reads it, however many have trained it; all of them must call it.

        Args:
            output_dir: the folder; None for the run's own.
            merge_tensor_parallel: PaddleNLP's.

        Raises:
            OSError: it cannot be written.
        """
        if not any(is_cut(parameter) for parameter in self.model.parameters()):
            super().save_model(output_dir, merge_tensor_parallel)
            return
        with whole_parameters(self.model_wrapped):
            if self.args.should_save_model_state:
                self.write_model(output_dir, merge_tensor_parallel=merge_tensor_parallel)

    def on_model_wrapped(self, wrapped: nn.Layer) -> None:
        """Mend what stage 3 of sharding does wrong."""
        mend_stage3(wrapped)

    def write_checkpoint(self, metrics: dict[str, float] | None) -> None:
        """Write a checkpoint, whole or not at all.

        Args:
            metrics: of the evaluation at this step, if there was one.

        Raises:
            OSError: it could not be written; what was written of it is gone, earlier checkpoints are as they were.
        """
        step = self.state.global_step
        note_best(self.state, self.args, metrics, self.store.folder(step))
        problem = self._try_to_stage(step)
        if problem and self.args.tensor_parallel_degree > 1:
            # The ranks that share the model wait for this one's part of it, and would never learn of the problem.
            raise self._save_error(step, [problem])
        problems = _of_all_ranks(problem)
        if not problems:
            # No rank goes on before the checkpoint is there, which it may be about to read, nor where it is not.
            problems = _of_all_ranks(self._try_to_publish(step) if self.is_world_process_zero() else "")
        if problems:
            raise self._save_error(step, problems)

    def _try_to_stage(self, step: int) -> str:
        """Write this rank's part, and return why that fails; "" where it does not."""
        try:
            self.write_part(self.store.staging(step))
        except Exception as error:
            if (reason := write_failure(error)) is None:
                raise
            return reason
        return ""

    def _try_to_publish(self, step: int) -> str:
        """Make what all have written a checkpoint, and return why that fails; "" where it does not."""
        best = self.state.best_model_checkpoint
        try:
            self.store.publish(step)
            self.store.remove_older(step, self.args.save_total_limit, Path(best) if best else None)
        except OSError as error:
            return str(error)
        return ""

    def _save_error(self, step: int, problems: list[str]) -> OSError:
        if self.is_world_process_zero():
            self.store.discard(step)
        last = self.store.latest()
        rest = f"goes on from {last}, which is whole" if last else "begins anew: no checkpoint was written before"
        return OSError(
            f"the checkpoint of step {step} cannot be written to `output_dir` {self.store.output_dir}: "
            f"{'; '.join(problems)}. Training has stopped; make room there, then start again with "
            f"`resume_from_checkpoint` set to true: it {rest}."
        )

    def write_part(self, folder: Path) -> None:
        """Write this rank's part of a checkpoint."""
        folder.mkdir(parents=True, exist_ok=True)
        self.save_model(str(folder))
        save_random_states(folder / random_state_file(f"{self.args.process_index:05d}"))
        if not self.args.ignore_save_lr_and_optim and self._has_optimizer_part():
            is_writer = self.args.tensor_parallel_rank == 0
            save_optimizer(self.optimizer, self.model, folder, rank=self.args.process_index, is_writer=is_writer)
        if self.is_world_process_zero():
            self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
            self._resume_state().write(folder)
            self.write_run_files(folder)

    def _has_optimizer_part(self) -> bool:
        """Tell whether this rank keeps states of the optimizer that no rank before it has."""
        return self.dp_group.rank <= 0 if self.args.use_hybrid_parallel else self.args.should_save

    def _resume_state(self) -> ResumeState:
        return ResumeState(
            scheduler=self.lr_scheduler.state_dict(),
            scaler=self.scaler.state_dict() if self.do_grad_scaling else {},
            # Whatever was not logged yet is not in it; so a step that is saved is logged first (`StepLog`).
            total_loss=self._earlier_loss + self.summed_loss,
            log=self.log_history,
            evaluations_without_gain=(
                self._early_stopping.early_stopping_patience_counter if self._early_stopping else 0
            ),
        )

    def load_progress_of(self, checkpoint: Path) -> None:
        """Restore all but the weights and the random states."""
        load_optimizer(self.optimizer, self.model, checkpoint)
        state = ResumeState.read(checkpoint)
        try:
            self.lr_scheduler.set_state_dict(state.scheduler)
            if self.do_grad_scaling and state.scaler:
                self.scaler.load_state_dict(state.scaler)
        except (RuntimeError, LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"{checkpoint}: the state of its learning rate, or of the loss in fp16, is none of ours ({error})."
            ) from error
        self._earlier_loss, self.log_history = state.total_loss, state.log
        if self._early_stopping is not None:
            self._early_stopping.early_stopping_patience_counter = state.evaluations_without_gain

    def load_random_states_of(self, checkpoint: Path) -> None:
        """Restore the random states of this rank; another number of ranks than before begins with fresh ones."""
        ranks = len(list(checkpoint.glob(random_state_file("*"))))
        if ranks == self.args.world_size:
            load_random_states(checkpoint / random_state_file(f"{self.args.process_index:05d}"))
        else:
            logger.warning("%s was saved by %d processes: random states begin anew.", checkpoint, ranks)

    def last_epoch(self, done: int, max_steps: int, epochs: int, steps_per_epoch: int) -> int:
        """Return the epoch to stop before: PaddleNLP takes a step from a checkpoint of a run that had ended."""
        stopped_early = self._early_stopping is not None and self._early_stopping.is_met
        return done // steps_per_epoch if done >= max_steps or stopped_early else epochs

    @contextmanager
    def _best_model_at_end(self) -> Iterator[None]:
        """Load the best checkpoint's weights after the block: PaddleNLP looks for them in pickled files."""
        wanted, self.args.load_best_model_at_end = self.args.load_best_model_at_end, False
        try:
            yield
        finally:
            self.args.load_best_model_at_end = wanted
        best = self.state.best_model_checkpoint
        if not wanted or best is None or self.interruption.has_ended_training:
            return
        if damage := find_damage(Path(best)):
            raise ValueError(f"{best}, the checkpoint with the best evaluation, is damaged: {damage}.")
        logger.info(
            "The best checkpoint is %s (%s %.6g).", best, self.args.metric_for_best_model, self.state.best_metric
        )
        with whole_parameters_to_fill(self.model_wrapped):
            self.load_weights_of(Path(best))


def _of_all_ranks(problem: str) -> list[str]:
    """Return what is wrong in any rank; empty where nothing is."""
    return [one for one in gather_texts(problem) if one]
