"""Steps that float16 has left out: each of them is told of, and a run that no scale of the loss helps is ended."""

from __future__ import annotations

import logging
from typing import Any

from paddlenlp.trainer import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from paddlemix.distributed.paddle_seams import has_overflown, loss_scale
from paddlemix.training.callbacks.finite_checks import NonFiniteError

# Below it the scale makes gradients smaller, which are infinite for another reason than the scale.
LEAST = 1.0

logger = logging.getLogger(__name__)


class LossScale(TrainerCallback):
    """Tells of steps whose gradients have overflown, by their numbers, and what the loss is multiplied by since."""

    def on_optimizer_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        scaler: Any = None,
        **kwargs: Any,
    ) -> None:
        """Look at the step that the optimizer has taken, or has left out.

        Args:
            args: unused.
            state: says which step it is.
            control: unused.
            scaler: of the loss; None where gradients are not scaled.
            **kwargs: unused.

        Raises:
            NonFiniteError: the scale has fallen so far that it cannot be what makes gradients infinite.
        """
        if scaler is None or not has_overflown(scaler):
            return
        step, scale = state.global_step + 1, loss_scale(scaler)
        if scale < LEAST:
            raise NonFiniteError(
                f"the gradients of step {step} are NaN or infinite in float16, as those of the steps before it, "
                f"although the loss is multiplied by no more than {2 * scale:,.10g}. Training has stopped, the "
                "checkpoints are as they were. Train in bfloat16 (`bf16` in place of `fp16`), or lower `learning_rate`."
            )
        logger.warning(
            "step %d: its gradients are too large for float16, so it is left out: weights and learning rate stay as "
            "they are. The loss is multiplied by %s from here on, half of what it was.",
            step,
            f"{scale:,.10g}",
        )
