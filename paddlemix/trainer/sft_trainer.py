"""Supervised fine-tuning on PaddleNLP's Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import paddle
from paddle import nn
from paddlenlp.trainer import Trainer, TrainingArguments
from paddlenlp.trainer.trainer_callback import PrinterCallback, ProgressCallback

from paddlemix.datasets.collate import PadCollator
from paddlemix.datasets.mix_dataset import MixDataset
from paddlemix.datasets.sampler import ShuffledBatchSampler
from paddlemix.models.base import MixPretrainedModel
from paddlemix.models.weights import load_weights
from paddlemix.trainer.memory import SamplingMemoryTracker
from paddlemix.trainer.progress import ProgressBar


class SFTTrainer(Trainer):
    """PaddleNLP's Trainer with our batches, our checkpoints and our progress bar.

    Args:
        model: to train.
        args: PaddleNLP's.
        train_dataset: None where nothing is trained.
        eval_dataset: None where nothing is evaluated.
        processor: saved beside the model in every checkpoint, and its tokenizer pads.
        group_by_length: batch samples of about the same length.
        benchmark: show the samples a second.
    """

    def __init__(
        self,
        model: MixPretrainedModel,
        args: TrainingArguments,
        train_dataset: MixDataset | None,
        eval_dataset: MixDataset | None,
        processor: Any,
        *,
        group_by_length: bool = False,
        benchmark: bool = False,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            data_collator=PadCollator(processor.tokenizer.pad_token_id),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            # What Trainer calls the tokenizer it only saves; the processor saves the tokenizer and the rest.
            tokenizer=processor,
            callbacks=[ProgressBar(show_speed=benchmark)],
        )
        self._memory_tracker = SamplingMemoryTracker(args.skip_memory_metrics)
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        self.group_by_length = group_by_length
        self.log_history: list[dict[str, float]] = []

    def log(self, logs: dict[str, float], **kwargs: Any) -> None:
        """Keep every log for the loss curve; PaddleNLP's state keeps none."""
        super().log(logs, **kwargs)
        self.log_history.append({"step": self.state.global_step, **logs})

    def prediction_step(
        self,
        model: nn.Layer,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[paddle.Tensor, None, None]:
        """The loss alone: the logits of a whole evaluation set would not fit in memory."""
        del prediction_loss_only, ignore_keys
        with paddle.no_grad(), self.autocast_smart_context_manager():
            return self.compute_loss(model, self._prepare_inputs(inputs)).mean().detach(), None, None

    def _get_train_sampler(self) -> ShuffledBatchSampler:
        return ShuffledBatchSampler(
            self.train_dataset,
            [size.tokens for size in self.train_dataset.sizes],
            batch_size=self.args.per_device_train_batch_size,
            group_by_length=self.group_by_length,
            seed=self.args.seed,
            num_replicas=self.args.dataset_world_size,
            rank=self.args.dataset_rank,
            drop_last=self.args.dataloader_drop_last,
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str | None = None) -> None:
        """Read a checkpoint's safetensors; PaddleNLP's own reader looks for pickled files."""
        if resume_from_checkpoint is None:
            return
        load_weights(self.model, Path(resume_from_checkpoint), self.model.weight_layout(self.model.config))
