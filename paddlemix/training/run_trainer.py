"""Everything about a run but its loss: batches, logs, checks, evaluation and going on from a checkpoint."""

from __future__ import annotations

import dataclasses
import logging
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.optimizer.lr import LambdaDecay
from paddlenlp.trainer import TrainerState, TrainingArguments
from paddlenlp.trainer.trainer import TRAINER_STATE_NAME
from paddlenlp.trainer.trainer_callback import PrinterCallback, ProgressCallback, TrainerControl
from paddlenlp.trainer.trainer_utils import EvalLoopOutput

from paddlemix.bounded_json import OWN_STATES, whole_number
from paddlemix.checkpoints.identity import RunIdentity, check_same_run
from paddlemix.contract import Model, Processor
from paddlemix.datasets.bad_records import FILE as BAD_RECORDS_FILE
from paddlemix.datasets.bad_records import BadRecords
from paddlemix.datasets.batching import Batching
from paddlemix.datasets.collate import TrainingCollator
from paddlemix.datasets.loading.workers import BatchLoader
from paddlemix.datasets.mix_dataset import MixDataset
from paddlemix.datasets.mixing.loss_weights import WeightedRow
from paddlemix.datasets.mixing.sampler import BatchShape, GlobalBatchSampler, Place, WholeSetSampler
from paddlemix.datasets.row_dataset import RowDataset
from paddlemix.distributed.paddle_seams import keep_master_weights, loss_scale
from paddlemix.distributed.ranks import wait_for_all
from paddlemix.distributed.sharding import whole_parameters
from paddlemix.files import read_json_object
from paddlemix.handover import is_on_card
from paddlemix.models.base import MixPretrainedModel
from paddlemix.ops.denormals import flushed_denormals
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.training.answer_evaluation import AnswerEvaluation
from paddlemix.training.callbacks.early_stopping import EarlyStopping
from paddlemix.training.callbacks.finite_checks import check_losses, check_weights, name_records
from paddlemix.training.callbacks.fused_adamw import FusedAdamW
from paddlemix.training.callbacks.gradient_norm import GradientNorm
from paddlemix.training.callbacks.loss_scale import LossScale
from paddlemix.training.callbacks.memory_use import FreedMemory, SamplingMemoryTracker, memory_in_use
from paddlemix.training.callbacks.mixture_log import MixtureLog
from paddlemix.training.callbacks.progress import ProgressBar, StepLog
from paddlemix.training.callbacks.throughput import Throughput
from paddlemix.training.checkpointing import CheckpointingTrainer
from paddlemix.training.run_identity import KNOWN_KEYS
from paddlemix.training.schedule import count_steps, end_safely
from paddlemix.weights.loading import load_weights

logger = logging.getLogger(__name__)

# Forward passes of a step that nobody waits for long, whether or not they have a record of their own.
_SPARE_BATCHES = 64
# Beyond it a step's number is none that a run has reached.
_MOST_STEPS = 2**53


class RunTrainer(CheckpointingTrainer):
    """PaddleNLP's Trainer with our batches, our checkpoints, our logs and our progress bar.

    A kind of training is a subclass with one method: `batch_loss`. The losses of all batches of a global batch, in all
    ranks, add up to that of the optimizer step, whatever part of it a forward pass sees. What is logged is the mean
    over the steps since the last log of that loss.

    Args:
        model: to train.
        args: PaddleNLP's.
        train_dataset: None where nothing is trained.
        eval_dataset: None where nothing is evaluated.
        processor: saved beside the model in every checkpoint, and its tokenizer pads.
        sampling: what a row of a batch is, and what the loss is a mean of.
        identity_keys: by which a checkpoint is known to be of this run, see `run_identity`.
        early_stopping: None where training does not stop early.
        answers: evaluates what the model writes; None where the loss is enough.
        rate_factors: what else is logged of the learning rate: by name, how many times as high it is.
        benchmark: show the samples a second.

    Attributes:
        control: PaddleNLP's, what is to be done next.
        train_sampler: draws from `train_dataset`; None where nothing is trained.
    """

    control: TrainerControl
    train_sampler: GlobalBatchSampler | None

    def __init__(
        self,
        model: MixPretrainedModel | MixLoRAModel,
        args: TrainingArguments,
        train_dataset: MixDataset | None,
        eval_dataset: MixDataset | None,
        processor: Processor,
        *,
        sampling: Batching | None = None,
        identity_keys: Mapping[str, Any] | None = None,
        early_stopping: EarlyStopping | None = None,
        answers: AnswerEvaluation | None = None,
        rate_factors: Mapping[str, float] | None = None,
        benchmark: bool = False,
    ) -> None:
        sampling = sampling or Batching()
        super().__init__(
            model=model,
            args=args,
            data_collator=TrainingCollator(
                processor.tokenizer.pad_token_id,
                packs=sampling.packs,
                pixel_dtype=_pixel_dtype(model, args),
                # Fleet sends all inputs round the ranks that share a model, and knows tensors alone.
                lay_out=partial(model.lay_out, model.config) if args.tensor_parallel_degree <= 1 else None,
            ),
            train_dataset=_rows_of(train_dataset, args.output_dir, sampling, trains=True),
            eval_dataset=_rows_of(eval_dataset, args.output_dir, sampling, trains=False),
            # What Trainer calls the tokenizer it only saves; the processor saves the tokenizer and the rest.
            tokenizer=processor,
            early_stopping=early_stopping,
        )
        # Behind those that decide what is saved.
        progress = ProgressBar(show_speed=benchmark, is_wanted=not args.disable_tqdm)
        for callback in (LossScale(), StepLog(), progress, FreedMemory()):
            self.add_callback(callback)
        args.disable_tqdm = True  # the bar that is left is PaddleNLP's for skipped batches, of which we read none
        self._identity_keys = identity_keys or {}
        self._drawn_records = None if train_dataset is None else train_dataset.drawn_records()
        # The first rank alone writes and compares it.
        self._contents = [] if train_dataset is None or not self.is_world_process_zero() else train_dataset.contents()
        self._answers = answers
        self._rate_factors = rate_factors or {}
        self.watch_memory_with(SamplingMemoryTracker(args.skip_memory_metrics))
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        self.train_sampler = None
        if train_dataset is not None:
            shape = self._shape(args.per_device_train_batch_size, args.gradient_accumulation_steps)
            self.train_sampler = sampling.training(
                train_dataset, shape, seed=args.seed, drop_last=args.dataloader_drop_last
            )
            _check_accumulation(args.gradient_accumulation_steps, len(self.train_sampler.first_rows))
            self._mixture_log = MixtureLog(train_dataset, self.train_sampler)
            self._throughput = Throughput(train_dataset, self.train_sampler, packs=sampling.packs)
        self._eval_sampler = None
        if eval_dataset is not None:
            shape = self._shape(args.per_device_eval_batch_size, 1)
            self._eval_sampler = sampling.evaluation(eval_dataset, shape, max_batches=max(args.max_evaluate_steps, 0))
        self._batch_losses: list[paddle.Tensor] = []
        self._data_offset = self._logged = 0

    def log(self, logs: dict[str, float], **kwargs: Any) -> None:
        """Log also the modules' own learning rates, the gradients' norm, the speed, and what was drawn of each set."""
        if "loss" in logs:
            # rounded as PaddleNLP rounds `learning_rate`
            logs |= {name: float(f"{self.learning_rate * factor:.3e}") for name, factor in self._rate_factors.items()}
            if (norm := self._gradient_norm.take()) is not None:
                logs["grad_norm"] = norm
            if self.do_grad_scaling:
                logs["loss_scale"] = loss_scale(self.scaler)
            steps = [self._place(step) for step in range(self._logged, self.state.global_step)]
            self._logged = self.state.global_step
            logs |= self._throughput.figures(steps)
            logs["memory_gib"] = memory_in_use() / 2**30
            logs |= self._mixture_log.shares(steps)
        super().log(logs, **kwargs)

    def outside_steps(self) -> AbstractContextManager[None]:
        """Stop the clock for the time that logs, evaluations and checkpoints take."""
        return self._throughput.paused()

    def planned_steps(self, max_steps: int) -> int:
        """Count as the plan does."""
        return max_steps if self.train_sampler is None else count_steps(self.train_sampler.steps, self.args)

    def create_scheduler(self, num_training_steps: int) -> LambdaDecay:
        """Make the learning rate's schedule.

        Args:
            num_training_steps: as PaddleNLP counts them.

        Returns:
            The schedule, over the steps of the plan.
        """
        steps = self.planned_steps(num_training_steps)
        schedule = super().create_scheduler(steps)
        end_safely(schedule, self.args, steps)
        return schedule

    def create_optimizer(self, lr_scheduler: LambdaDecay | None = None) -> Any:
        """Make the optimizer; PaddleNLP lets it keep float32 copies of half-precision weights at O2 alone.

        Args:
            lr_scheduler: the learning rate's schedule; None for the trainer's own.

        Returns:
            The optimizer.
        """
        optimizer = super().create_optimizer(lr_scheduler)
        keep_master_weights(optimizer)
        return optimizer

    @abstractmethod
    def batch_loss(self, model: Model, inputs: dict[str, paddle.Tensor]) -> paddle.Tensor:
        """Compute a batch's share of the loss of what it is a part of: a global batch, or the set to evaluate on.

        Args:
            model: in training mode with gradients, or in evaluation mode without; perhaps with what fleet puts round
                it, so that it is only to be called.
            inputs: of `TrainingCollator`; its `loss_weights` already divide by the tokens of the whole.

        Returns:
            float32[].
        """

    def compute_loss(
        self, model: Model, inputs: dict[str, paddle.Tensor], return_outputs: bool = False
    ) -> paddle.Tensor:
        """Compute this batch's share of the global batch's loss, times what PaddleNLP divides it by.

        Args:
            model: to train.
            inputs: of `TrainingCollator`.
            return_outputs: not supported; PaddleNLP's own evaluation alone asks for outputs.

        Returns:
            float32[].
        """
        assert not return_outputs
        # PaddleNLP divides by the accumulated batches, and data parallelism takes the mean of the ranks' gradients.
        return self.batch_loss(model, inputs) * (self.args.gradient_accumulation_steps * self.args.dataset_world_size)

    @flushed_denormals()
    def evaluation_loop(
        self,
        dataloader: paddle.io.DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
        max_eval_iters: int | None = -1,
    ) -> EvalLoopOutput:
        """Add up the losses of the whole set's batches; the logits of a whole batch would not fit in memory.

        Args:
            dataloader: draws from a `WholeSetSampler`, which ends where `max_evaluate_steps` says.
            description: unused, as all that follow but `metric_key_prefix`.
            prediction_loss_only: unused.
            ignore_keys: unused.
            metric_key_prefix: begins the metric's name.
            max_eval_iters: unused.

        Returns:
            The loss, and the scores of the model's answers where they are evaluated, as metrics.
        """
        del description, prediction_loss_only, ignore_keys, max_eval_iters
        self.model.eval()
        total, unread = 0.0, None
        dataloader.dataset.forget_left_out()
        for inputs in dataloader:
            with paddle.no_grad(), self.autocast_smart_context_manager():
                loss = self.batch_loss(self.model, self.prepared(inputs))
            # A batch behind: a card has the next one to compute while it is waited for.
            total, unread = total + (0.0 if unread is None else float(unread)), loss
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        total += 0.0 if unread is None else float(unread)
        left_out = dataloader.dataset.left_out
        metrics = {**self._mean_loss(total, left_out, dataloader.batch_sampler), **self._score_answers()}
        self.model.train()
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        return EvalLoopOutput(None, None, metrics, num_samples=len(dataloader.dataset))

    def _score_answers(self) -> dict[str, float]:
        if self._answers is None:
            return {}
        with paddle.no_grad(), self.autocast_smart_context_manager():
            return self._answers.metrics(self.model, rank=self.args.dataset_rank, ranks=self.args.dataset_world_size)

    def _mean_loss(self, total: float, left_out: np.ndarray, sampler: WholeSetSampler) -> dict[str, float]:
        """Take the mean over the records that were not left out.

        Args:
            total: what this rank's batches add up to, as if none had been.
            left_out: int64[n], the records of this rank that were.
            sampler: has drawn them.

        Returns:
            The loss, and how many were left out where any was.

        Raises:
            ValueError: nothing is left.
        """
        loss = self._sum_over_ranks(total)
        if not (self.eval_dataset.bad_records and (count := self._sum_over_ranks(len(left_out)))):
            return {"loss": loss}
        targets = self._sum_over_ranks(sampler.targets[left_out].sum())
        if targets > sampler.drawn_targets - 0.5:
            raise ValueError(f"no record to evaluate on can be used; {BAD_RECORDS_FILE} in `output_dir` names them.")
        return {"loss": loss * sampler.drawn_targets / (sampler.drawn_targets - targets), "left_out": count}

    def _sum_over_ranks(self, value: float) -> float:
        wait_for_all()  # one rank's records may have taken minutes longer
        total = paddle.to_tensor(float(value), dtype="float64")
        if self.args.dataset_world_size > 1:
            paddle.distributed.all_reduce(total)
            # Ranks that share a model have computed the same, and each has brought it.
            total *= self.args.dataset_world_size / self.args.world_size
        return float(total)

    def bad_record_metrics(self) -> dict[str, float]:
        """Count the records in whose places others were trained, and tell; nothing where bad records end the run."""
        names = None if self.train_dataset is None else self.train_dataset.bad_records
        if names is None:
            return {}
        count = names.count_replaced()
        if count:
            logger.warning("bad records that were replaced by others: %d; %s lists them.", count, names.path)
        return {"bad_records": count}

    def _shape(self, rows: int, accumulation: int) -> BatchShape:
        return BatchShape(rows, accumulation, self.args.dataset_world_size, self.args.dataset_rank)

    def get_train_dataloader(self) -> BatchLoader:
        """Return the batches to train on."""
        return BatchLoader(self.train_dataset, self.train_sampler, self.data_collator, self.args.dataloader_num_workers)

    def get_eval_dataloader(self, eval_dataset: RowDataset | None = None) -> BatchLoader:
        """Return the batches to evaluate on; always those that the trainer was made with."""
        del eval_dataset
        return BatchLoader(self.eval_dataset, self._eval_sampler, self.data_collator, self.args.dataloader_num_workers)

    def training_step(self, model: Model, inputs: dict[str, paddle.Tensor]) -> paddle.Tensor:
        """Run a batch's forward and backward pass, and keep its loss until its step is checked."""
        loss = super().training_step(model, inputs)
        self._batch_losses.append(loss)
        return loss

    def check_step_loss(self, loss: paddle.Tensor) -> None:
        """Stop before an update that would spoil the weights; PaddleNLP looks at every step's loss here anyway."""
        losses, self._batch_losses = self._batch_losses, []
        step = self.state.global_step
        check_losses(
            float(loss),
            losses,
            lambda: self._batches_of(step),
            self.train_dataset,
            step=step + 1,
            in_float16=self.args.fp16,
        )

    def _is_logged(self, step: int) -> bool:
        """Tell whether PaddleNLP logs a step because of its number."""
        return step % self.args.logging_steps == 0 or (step == 1 and self.args.logging_first_step)

    def _batches_of(self, step: int) -> list[list[WeightedRow]]:
        return self._required_sampler().batches_of(*self._place(step))

    def _place(self, step: int) -> Place:
        """Find where in the data an optimizer step of the run is."""
        return divmod(step - self._data_offset, self._required_sampler().steps)

    def _required_sampler(self) -> GlobalBatchSampler:
        if self.train_sampler is None:
            raise ValueError("This trainer has no `train_dataset`; expected one, to train on.")
        return self.train_sampler

    def write_part(self, folder: Path) -> None:
        """Write this rank's part of a checkpoint, unless the weights are NaN or infinite."""
        step = self.state.global_step
        with whole_parameters(self.model_wrapped):
            check_weights(self.model, step, lambda: name_records(self._batches_of(step - 1), self.train_dataset))
            super().write_part(folder)

    def write_run_files(self, folder: Path) -> None:
        """Write the run's identity, and the records that it draws."""
        self._identity().write(folder)
        if self._drawn_records is not None:
            self._drawn_records.write(folder)

    def check_same_run(self, checkpoint: Path) -> None:
        """Refuse a checkpoint of another run; log what has changed and may."""
        identity = self._identity()
        changed = check_same_run(checkpoint, identity, KNOWN_KEYS, ignore_data=self.args.ignore_data_skip)
        logger.info("Going on from %s.", checkpoint)
        if changed:
            logger.warning("The run goes on with other values: %s.", "; ".join(changed))
        for change in identity.content_changes(RunIdentity.read(checkpoint)):
            logger.warning("%s.", change)

    def _identity(self) -> RunIdentity:
        drawn_from = self._required_sampler().fingerprint
        return RunIdentity.of(
            self._identity_keys,
            self.model.config,
            drawn_from,
            ranks=self.args.dataset_world_size,
            contents=self._contents,
        )

    def begin_steps(self, loader: BatchLoader, checkpoint: Path | None, max_steps: int, epochs: int) -> int:
        """Go on where a checkpoint was: PaddleNLP would draw and throw away all batches before it."""
        steps = loader.batch_sampler.steps
        done = self._steps_done(checkpoint)
        self._logged = done
        self._throughput.begin()
        self._gradient_norm = GradientNorm(
            self.optimizer,
            tensor_parallel_degree=max(self.args.tensor_parallel_degree, 1),
            sharding_degree=max(self.args.sharding_parallel_degree, 1),
            is_wanted=lambda: self._is_logged(self.state.global_step + 1),
        )
        FusedAdamW(self._gradient_norm).take_over(self.optimizer)
        self._data_offset = done % steps if self.args.ignore_data_skip else 0
        if done and not self.args.ignore_data_skip:
            loader.begin_at(done % steps, done % steps * self.args.gradient_accumulation_steps)
        if done and checkpoint is not None:
            self.load_random_states_of(checkpoint)  # PaddleNLP does so only within an epoch
        return self.last_epoch(done, max_steps, epochs, steps)

    def _steps_done(self, checkpoint: Path | None) -> int:
        if checkpoint is None or self.args.ignore_load_lr_and_optim:
            return 0
        file = checkpoint / TRAINER_STATE_NAME
        values = read_json_object(file, limits=OWN_STATES)  # as PaddleNLP reads it after us, without asking what it is
        known = {one.name for one in dataclasses.fields(TrainerState)}
        done: Any = values.get("global_step")
        seen = values.get("consumed_samples", 0)
        if set(values) - known or not whole_number(done, 0, _MOST_STEPS) or not whole_number(seen, 0, _MOST_STEPS):
            raise ValueError(
                f"{file}: is no state of a run of ours; expected `global_step` and `consumed_samples`, whole numbers, "
                "and no keys but PaddleNLP's."
            )
        return int(done)

    def load_weights_of(self, checkpoint: Path) -> None:
        """Read a checkpoint's safetensors."""
        if isinstance(self.model, MixLoRAModel):
            self.model.load_adapter(checkpoint)
            return
        load_weights(self.model, checkpoint, self.model.weight_layout(self.model.config))


def _pixel_dtype(model: MixPretrainedModel | MixLoRAModel, args: TrainingArguments) -> str:
    """Tell in which dtype the tower computes with pixels: its weights', or that of the autocast around it."""
    held = str(next(iter(model.tower.parameters())).dtype).removeprefix("paddle.")
    is_autocast = args.fp16_opt_level == "O1" and (args.bf16 or args.fp16) and not args.amp_custom_black_list
    # On a CPU Paddle's autocast does nothing.
    if held == "float32" and is_autocast and is_on_card():
        return "bfloat16" if args.bf16 else "float16"
    return held


def _check_accumulation(batches: int, rows: int) -> None:
    """Refuse steps most of whose forward passes would have no record of their own."""
    if batches > max(rows, _SPARE_BATCHES):
        raise ValueError(
            f"`gradient_accumulation_steps` is {batches}, but an epoch has only {rows} rows for the forward passes of "
            f"its steps. Set it to {rows} at most."
        )


def _rows_of(dataset: MixDataset | None, output_dir: str, sampling: Batching, *, trains: bool) -> RowDataset | None:
    """Ask a data set for rows, and let it replace records, or leave them out, that turn out to be bad, if it may."""
    if dataset is None:
        return None
    names = BadRecords(Path(output_dir) / BAD_RECORDS_FILE) if dataset.on_bad_record == "skip" else None
    return RowDataset(dataset, names, pack_tokens=sampling.pack_tokens, trains=trains)
