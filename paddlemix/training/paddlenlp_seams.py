"""Every private name of PaddleNLP's Trainer that training touches, each behind a public method with a name of ours.

True for PaddleNLP 3.0.0b4. tests/training/test_paddlenlp_seams.py looks for each name in the PaddleNLP that is
installed and compares the arguments, so that an upgrade which changes one fails there with a sentence; it finds private
names that another file reads, too. Paddle's own, of optimizers and of sharding, are in `distributed/paddle_seams.py`.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import paddle
from paddle import nn
from paddlenlp.trainer import Trainer, TrainingArguments
from paddlenlp.trainer.trainer_utils import TrainerMemoryTracker, TrainOutput
from paddlenlp.utils.log import logger as trainer_logger

from paddlemix.distributed.paddle_seams import silence_updates, unscale_added_gradients

PADDLENLP_VERSION = "3.0.0b4"


def _tells_of_no_skipped_step(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("optimizer not run")


class SeamTrainer(Trainer, ABC):
    """PaddleNLP's Trainer, which calls public methods of ours where it has private ones to override."""

    # What a subclass defines. PaddleNLP's own methods of these purposes are not called.

    @abstractmethod
    def write_checkpoint(self, metrics: dict[str, float] | None) -> None:
        """Write a checkpoint of the step that has just ended.

        Args:
            metrics: of the evaluation at this step; None where there was none.
        """

    @abstractmethod
    def load_weights_of(self, checkpoint: Path) -> None:
        """Fill the model, before fleet wraps it, from a checkpoint's folder."""

    @abstractmethod
    def load_progress_of(self, checkpoint: Path) -> None:
        """Restore optimizer, scheduler and our own counts from a checkpoint's folder; the model is wrapped by now."""

    @abstractmethod
    def load_random_states_of(self, checkpoint: Path) -> None:
        """Restore the random states of this rank from a checkpoint's folder."""

    @abstractmethod
    def check_step_loss(self, loss: paddle.Tensor) -> None:
        """Stop before an update that would spoil the weights.

        Args:
            loss: float32[], of this step and those before it that were not logged yet.
        """

    @abstractmethod
    def begin_steps(self, loader: Any, checkpoint: Path | None, max_steps: int, epochs: int) -> int:
        """Prepare the first step of this process.

        Args:
            loader: what `get_train_dataloader` gave.
            checkpoint: the folder that the run goes on from, loaded but for its random states; None for a new run.
            max_steps: of the whole run.
            epochs: the epoch that PaddleNLP would stop before.

        Returns:
            The epoch to stop before.
        """

    # What a subclass may add to.

    def on_model_wrapped(self, wrapped: nn.Layer) -> None:
        """Look at the model as training calls it, once fleet has wrapped it."""

    def planned_steps(self, max_steps: int) -> int:
        """Return how many steps the run takes; PaddleNLP counts `max_steps`, and none where epochs ask for a part."""
        return max_steps

    def outside_steps(self) -> AbstractContextManager[None]:
        """Return what encloses the logging, evaluating and saving between two steps."""
        return nullcontext()

    # What a subclass calls.

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return self._get_learning_rate()

    @property
    def summed_loss(self) -> float:
        """The sum of the losses that were logged since this process began to train."""
        return self._total_loss_scalar

    def prepared(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Bring a batch's tensors to where the model is."""
        return self._prepare_inputs(inputs)

    def write_model(self, output_dir: str | None, *, merge_tensor_parallel: bool | None) -> None:
        """Write the model's files and the processor's, without the waits and collectives of `save_model`."""
        self._save(output_dir=output_dir, merge_tensor_parallel=merge_tensor_parallel)

    def watch_memory_with(self, tracker: TrainerMemoryTracker) -> None:
        """Put a tracker of the memory in use in the place of PaddleNLP's."""
        self._memory_tracker = tracker

    # PaddleNLP's names: when each of them is called is true for the version above.

    def _wrap_amp_model(self, args: TrainingArguments, model: nn.Layer) -> None:
        """Make the scaler of the loss; one for fleet's ways of sharing a model out knows gradients added in float32."""
        super()._wrap_amp_model(args, model)
        if args.fp16:
            # Both of them name no step; `LossScale` does.
            silence_updates(self.scaler)
            trainer_logger.logger.addFilter(_tells_of_no_skipped_step)
        if args.fp16 and args.amp_master_grad and args.tensor_parallel_degree <= 1 and self.sharding is None:
            unscale_added_gradients(self.scaler)

    def _wrap_model(self, model: nn.Layer, training: bool = True) -> nn.Layer:
        """Wrap it; called by `train` after the weights are loaded, and before the optimizer's states are."""
        wrapped = super()._wrap_model(model, training)
        self.on_model_wrapped(wrapped)
        return wrapped

    def _load_from_checkpoint(self, resume_from_checkpoint: str | None = None) -> None:
        """Fill the model; PaddleNLP looks for pickled files."""
        if resume_from_checkpoint is not None:
            self.load_weights_of(Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Restore them; PaddleNLP looks for pickled files, and names states by the order in which layers were made."""
        if checkpoint is not None and not self.args.ignore_load_lr_and_optim:
            self.load_progress_of(Path(checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Restore it; called within an epoch alone, when PaddleNLP has skipped batches."""
        if checkpoint is not None:
            self.load_random_states_of(Path(checkpoint))

    def _save_checkpoint(self, model: nn.Layer, metrics: dict[str, float] | None = None) -> None:
        """Save; PaddleNLP writes files under their final names, one after the other."""
        del model  # `self.model_wrapped`
        self.write_checkpoint(metrics)

    def _check_loss_valid(self, loss: paddle.Tensor) -> None:
        """Check it; called once a step, after its last backward pass and before the optimizer moves."""
        self.check_step_loss(loss)

    def _maybe_log_save_evaluate(
        self, tr_loss: paddle.Tensor, model: nn.Layer, epoch: int, ignore_keys_for_eval: list[str] | None, **kwargs: Any
    ) -> None:
        """Do what its name says; called after each step and each epoch, resets the loss that it logs."""
        with self.outside_steps():
            super()._maybe_log_save_evaluate(tr_loss, model, epoch, ignore_keys_for_eval, **kwargs)

    def _inner_training_loop(
        self,
        args: TrainingArguments,
        model: nn.Layer,
        train_dataloader: Iterable[Any],
        len_dataloader: int | None,
        max_steps: int,
        num_train_epochs: int,
        num_update_steps_per_epoch: int,
        num_train_samples: int,
        resume_from_checkpoint: str | None,
        ignore_keys_for_eval: list[str] | None,
    ) -> TrainOutput:
        """Train; called by `train` at its end."""
        checkpoint = None if resume_from_checkpoint is None else Path(resume_from_checkpoint)
        max_steps = self.planned_steps(max_steps)
        num_train_epochs = self.begin_steps(train_dataloader, checkpoint, max_steps, num_train_epochs)
        return super()._inner_training_loop(
            args,
            model,
            train_dataloader,
            len_dataloader,
            max_steps,
            num_train_epochs,
            num_update_steps_per_epoch,
            num_train_samples,
            resume_from_checkpoint,
            ignore_keys_for_eval,
        )
