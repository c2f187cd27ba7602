"""What a run is about to do, printed before its first step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median

from paddle import nn
from paddlenlp.trainer import TrainingArguments

from paddlemix.datasets.mix_dataset import MixDataset, SetSummary
from paddlemix.trainer.freezing import count_by_module


def describe_plan(
    model: nn.Layer, train: MixDataset | None, evaluation: MixDataset | None, args: TrainingArguments
) -> str:
    """The plan as text: records and tokens of each set, parameters by module, steps and effective batch."""
    lines = ["Plan"]
    for title, dataset in (("train", train), ("eval", evaluation)):
        if dataset is not None:
            lines += _set_lines(title, dataset.set_summaries())
    lines += _parameter_lines(model)
    if train is not None and args.do_train:
        lines += _step_lines(len(train), args)
    return "\n".join(lines)


def _set_lines(title: str, summaries: Sequence[SetSummary]) -> Iterator[str]:
    for summary in summaries:
        tokens = _median_and_max([size.tokens for size in summary.sizes])
        pictures = _median_and_max([size.picture_tokens for size in summary.sizes])
        skipped = f", {summary.skipped} skipped" if summary.skipped else ""
        recognised = ", recognised from its records" if summary.is_recognised else ""
        yield f"  {title}: {summary.name}{recognised} ({', '.join(summary.files)})"
        yield f"    {summary.count:,} records{skipped}; tokens a record {tokens}, of pictures {pictures}"


def _median_and_max(values: Sequence[int]) -> str:
    return f"median {median(values):g}, max {max(values)}" if values else "none"


def _parameter_lines(model: nn.Layer) -> Iterator[str]:
    counts = count_by_module(model)
    trained, total = sum(count.trained for count in counts), sum(count.trained + count.frozen for count in counts)
    yield f"  parameters: {trained:,} of {total:,} trained"
    for count in counts:
        yield f"    {count.module:<24} {count.trained:>14,} trained {count.frozen:>14,} frozen"


def _step_lines(records: int, args: TrainingArguments) -> Iterator[str]:
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.dataset_world_size
    steps_per_epoch = max(
        math.ceil(records / (args.per_device_train_batch_size * args.dataset_world_size))
        // args.gradient_accumulation_steps,
        1,
    )
    steps = args.max_steps if args.max_steps > 0 else int(steps_per_epoch * args.num_train_epochs)
    yield (
        f"  steps: {steps:,} ({steps / steps_per_epoch:.2f} epochs of {steps_per_epoch:,}), each on {batch} records: "
        f"{args.per_device_train_batch_size} a card x {args.gradient_accumulation_steps} accumulated x "
        f"{args.dataset_world_size} cards"
    )
