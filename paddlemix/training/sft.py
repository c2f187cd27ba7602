"""Supervised fine-tuning: the loss of the next token."""

from __future__ import annotations

import paddle

from paddlemix.contract import Model
from paddlemix.training.run_trainer import RunTrainer


class SFTTrainer(RunTrainer):
    """Trains a model to say what the assistant says.

    The loss of an optimizer step is the mean over the target tokens (or samples) of the whole global batch; that of an
    evaluation the mean over the target tokens of the whole set.
    """

    def batch_loss(self, model: Model, inputs: dict[str, paddle.Tensor]) -> paddle.Tensor:
        """Sum the next-token losses of a batch's target tokens, each times its weight (`loss_weights`).

        Args:
            model: called with the inputs.
            inputs: of `TrainingCollator`.

        Returns:
            float32[].
        """
        # In training only the logits of target tokens are computed; in evaluation those of a whole batch,
        # float[B, L, V], would not fit in memory.
        return model(**inputs, last_logits_only=True).loss
