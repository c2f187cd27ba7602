"""How many steps a run takes, and the learning rate of each of them."""

from __future__ import annotations

import math

from paddle.optimizer.lr import LambdaDecay
from paddlenlp.trainer import TrainingArguments
from paddlenlp.trainer.trainer_utils import SchedulerType


def count_steps(epoch_steps: int, args: TrainingArguments) -> int:
    """Count a run's optimizer steps as transformers does: a part of a step that epochs ask for is a whole one.

    Args:
        epoch_steps: of an epoch, one or more.
        args: `max_steps`, where it is above 0, goes before `num_train_epochs`.

    Returns:
        The steps, one or more.
    """
    assert epoch_steps > 0, "sets without records are refused when they are loaded"
    return args.max_steps if args.max_steps > 0 else math.ceil(epoch_steps * args.num_train_epochs)


def end_safely(schedule: LambdaDecay, args: TrainingArguments, steps: int) -> None:
    """Give a polynomial schedule its last value from its last step on, where PaddleNLP may divide by zero.

    It divides by the steps behind the warm-up, of which there may be none; the rate behind the last step is computed,
    though no step takes it.

    Args:
        schedule: PaddleNLP's; changed in place.
        args: say which one it is.
        steps: in which it falls to its end.
    """
    if args.lr_scheduler_type != SchedulerType.POLYNOMIAL:
        return
    factor = schedule.lr_lambda
    schedule.lr_lambda = lambda step: factor(step) if step < steps else args.lr_end / args.learning_rate
