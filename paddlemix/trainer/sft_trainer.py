"""Supervised fine-tuning on PaddleNLP's Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import paddle
from paddle import nn
from paddlenlp.trainer import Trainer, TrainerState, TrainingArguments
from paddlenlp.trainer.trainer import TRAINER_STATE_NAME
from paddlenlp.trainer.trainer_callback import PrinterCallback, ProgressCallback, TrainerControl
from paddlenlp.trainer.trainer_utils import EvalLoopOutput

from paddlemix.datasets.collate import TrainingCollator
from paddlemix.datasets.draws import DrawnDataset
from paddlemix.datasets.loader import BatchLoader
from paddlemix.datasets.mix_dataset import MixDataset
from paddlemix.datasets.sampler import BatchShape, GlobalBatchSampler
from paddlemix.datasets.sampling import Sampling
from paddlemix.models.base import MixPretrainedModel
from paddlemix.models.weights import load_weights
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.trainer.data_position import DataPosition, check_position
from paddlemix.trainer.memory import SamplingMemoryTracker
from paddlemix.trainer.mixture_log import MixtureLog
from paddlemix.trainer.progress import LastStepLog, ProgressBar


class SFTTrainer(Trainer):
    """PaddleNLP's Trainer with our batches, our loss, our checkpoints and our progress bar.

    The loss of an optimizer step is the mean over the target tokens (or samples) of the whole global batch, whatever
    part of it a forward pass sees. What is logged is the mean over the steps since the last log of that loss.

    Args:
        model: to train.
        args: PaddleNLP's.
        train_dataset: None where nothing is trained.
        eval_dataset: None where nothing is evaluated.
        processor: saved beside the model in every checkpoint, and its tokenizer pads.
        sampling: what a row of a batch is, and what the loss is a mean of.
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
        processor: Any,
        *,
        sampling: Sampling | None = None,
        benchmark: bool = False,
    ) -> None:
        sampling = sampling or Sampling()
        super().__init__(
            model=model,
            args=args,
            data_collator=TrainingCollator(processor.tokenizer.pad_token_id, packs=sampling.packs),
            train_dataset=None if train_dataset is None else DrawnDataset(train_dataset),
            eval_dataset=None if eval_dataset is None else DrawnDataset(eval_dataset),
            # What Trainer calls the tokenizer it only saves; the processor saves the tokenizer and the rest.
            tokenizer=processor,
            callbacks=[LastStepLog(), ProgressBar(show_speed=benchmark)],
        )
        self._memory_tracker = SamplingMemoryTracker(args.skip_memory_metrics)
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        self.train_sampler = None
        if train_dataset is not None:
            shape = self._shape(args.per_device_train_batch_size, args.gradient_accumulation_steps)
            self.train_sampler = sampling.training(
                train_dataset, shape, seed=args.seed, drop_last=args.dataloader_drop_last
            )
            self.add_callback(DataPosition(self.train_sampler))
            self._mixture_log = MixtureLog(train_dataset, self.train_sampler)
        self._eval_sampler = None
        if eval_dataset is not None:
            shape = self._shape(args.per_device_eval_batch_size, 1)
            self._eval_sampler = sampling.evaluation(eval_dataset, shape, max_batches=max(args.max_evaluate_steps, 0))
        self.log_history: list[dict[str, float]] = []

    def log(self, logs: dict[str, float], **kwargs: Any) -> None:
        """Keep every log for the loss curve, which PaddleNLP's state does not, and add what was drawn of each set."""
        if "loss" in logs:
            logs |= self._mixture_log.shares(self.state.global_step)
        super().log(logs, **kwargs)
        self.log_history.append({"step": self.state.global_step, **logs})

    def compute_loss(
        self, model: nn.Layer, inputs: dict[str, Any], return_outputs: bool = False
    ) -> paddle.Tensor | tuple[paddle.Tensor, Any]:
        """This batch's share of the global batch's loss, times what PaddleNLP divides it by.

        Args:
            model: called with the inputs.
            inputs: a batch of `TrainingCollator`; its weights already divide by the global batch's tokens.
            return_outputs: give the model's outputs too.

        Returns:
            float32[], or a pair of it and the outputs.
        """
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        # PaddleNLP divides by the accumulated batches, and data parallelism takes the mean of the ranks' gradients.
        loss = loss * (self.args.gradient_accumulation_steps * self.args.dataset_world_size)
        return (loss, outputs) if return_outputs else loss

    def evaluation_loop(
        self,
        dataloader: paddle.io.DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
        max_eval_iters: int | None = -1,
    ) -> EvalLoopOutput:
        """The mean loss of the whole set's target tokens; the logits of a whole batch would not fit in memory.

        Args:
            dataloader: draws from a `WholeSetSampler`, which ends where `max_evaluate_steps` says.
            description: unused, as all that follow but `metric_key_prefix`.
            prediction_loss_only: unused.
            ignore_keys: unused.
            metric_key_prefix: begins the metric's name.
            max_eval_iters: unused.

        Returns:
            The loss as the one metric.
        """
        del description, prediction_loss_only, ignore_keys, max_eval_iters
        self.model.eval()
        total = 0.0
        for inputs in dataloader:
            with paddle.no_grad(), self.autocast_smart_context_manager():
                total += float(self.model(**self._prepare_inputs(inputs), last_logits_only=True).loss)
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        self.model.train()
        metrics = {f"{metric_key_prefix}_loss": self._sum_over_ranks(total)}
        return EvalLoopOutput(None, None, metrics, num_samples=len(dataloader.dataset))

    def _sum_over_ranks(self, value: float) -> float:
        total = paddle.to_tensor(value, dtype="float64")
        if self.args.dataset_world_size > 1:
            paddle.distributed.all_reduce(total)
        return float(total)

    def _shape(self, rows: int, accumulation: int) -> BatchShape:
        return BatchShape(rows, accumulation, self.args.dataset_world_size, self.args.dataset_rank)

    def get_train_dataloader(self) -> BatchLoader:
        """The batches to train on."""
        return BatchLoader(self.train_dataset, self.train_sampler, self.data_collator, self.args.dataloader_num_workers)

    def get_eval_dataloader(self, eval_dataset: DrawnDataset | None = None) -> BatchLoader:
        """The batches to evaluate on; always those that the trainer was made with."""
        del eval_dataset
        return BatchLoader(self.eval_dataset, self._eval_sampler, self.data_collator, self.args.dataloader_num_workers)

    def _inner_training_loop(self, args: TrainingArguments, model: nn.Layer, loader: BatchLoader, *rest: Any) -> Any:
        """Go on where a checkpoint was: PaddleNLP would draw and throw away all batches before it."""
        checkpoint = rest[-2]
        state = Path(checkpoint) / TRAINER_STATE_NAME if checkpoint is not None else None
        self._mixture_log.begin_at(0)
        if state is not None and state.is_file() and not args.ignore_load_lr_and_optim:
            done = TrainerState.load_from_json(str(state)).global_step
            self._mixture_log.begin_at(done)
            if not args.ignore_data_skip:
                check_position(checkpoint, loader.batch_sampler)
                step = done % loader.batch_sampler.steps
                loader.begin_at(step, step * args.gradient_accumulation_steps)
        return super()._inner_training_loop(args, model, loader, *rest)

    def _load_from_checkpoint(self, resume_from_checkpoint: str | None = None) -> None:
        """Read a checkpoint's safetensors; PaddleNLP's own reader looks for pickled files."""
        if resume_from_checkpoint is None:
            return
        if isinstance(self.model, MixLoRAModel):
            self.model.load_adapter(Path(resume_from_checkpoint))
            return
        load_weights(self.model, Path(resume_from_checkpoint), self.model.weight_layout(self.model.config))

    def _load_best_model_from_peft_checkpoint(self) -> None:
        """Read the best checkpoint's adapter; PaddleNLP's own reader looks for pickled files, and goes on without."""
        self._load_from_checkpoint(self.state.best_model_checkpoint)
