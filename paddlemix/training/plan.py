"""What a run is about to do, printed before its first step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from paddle import nn
from paddlenlp.trainer import TrainingArguments

from paddlemix.datasets.mix_dataset import MixDataset, SetSummary
from paddlemix.datasets.mixing.packs import mean_fill
from paddlemix.datasets.mixing.rows import PackedRows
from paddlemix.datasets.mixing.sampler import GlobalBatchSampler
from paddlemix.peft.lora_model import MixLoRAModel
from paddlemix.training.freezing import count_by_module
from paddlemix.training.rates import factors_by_module
from paddlemix.training.schedule import count_steps


def describe_plan(
    model: nn.Layer,
    train: MixDataset | None,
    evaluation: MixDataset | None,
    args: TrainingArguments,
    sampler: GlobalBatchSampler | None,
) -> str:
    """Write the plan: sets and their tokens, parameters by module, how ranks share a run, packs, steps and batch."""
    lines = ["Plan"]
    for title, dataset in (("train", train), ("eval", evaluation)):
        if dataset is not None:
            lines += _set_lines(title, dataset.set_summaries())
    lines += _parameter_lines(model)
    lines += _rank_lines(args)
    if train is not None and sampler is not None and args.do_train:
        lines += _pack_lines(train, sampler)
        lines += _step_lines(sampler, args)
        lines += _rate_lines(model, args.learning_rate)
    return "\n".join(lines)


def _set_lines(title: str, summaries: Sequence[SetSummary]) -> Iterator[str]:
    for summary in summaries:
        tokens = _median_and_max(summary.sizes.column("tokens"))
        images = _median_and_max(summary.sizes.column("image_tokens"))
        skipped = f", {summary.skipped} skipped" if summary.skipped else ""
        recognised = ", recognised from its records" if summary.is_recognised else ""
        yield f"  {title}: {summary.name}{recognised} ({', '.join(summary.files)})"
        yield f"    {summary.count:,} records{skipped}; tokens a record {tokens}, of images {images}"
        if summary.drawn != summary.count and title == "train":
            yield f"    an epoch draws {summary.drawn:,}"


def _median_and_max(values: Sequence[int] | np.ndarray) -> str:
    return f"median {np.median(values):g}, max {np.max(values)}" if len(values) else "none"


def _parameter_lines(model: nn.Layer) -> Iterator[str]:
    if isinstance(model, MixLoRAModel):
        yield from _adapter_lines(model)
        model = model.model
    counts = count_by_module(model)
    trained, total = sum(count.trained for count in counts), sum(count.trained + count.frozen for count in counts)
    yield f"  parameters: {trained:,} of {total:,} trained"
    for count in counts:
        codes = f", {count.coded:,} of these as codes" if count.coded else ""
        yield f"    {count.module:<24} {count.trained:>14,} trained {count.frozen:>14,} frozen{codes}"


def _adapter_lines(model: MixLoRAModel) -> Iterator[str]:
    config, layers = model.adapter_config, model.adapted_layers
    kinds = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in layers))
    whole = f"; trained whole: {', '.join(model.whole_layers)}" if model.whole_layers else ""
    products = model.products.values()
    ranks = _span(sorted({product.rank for product in products}))
    scales = _span(sorted({config.scaling_of(product) for product in products}))
    biases = f"; {len(model.trained_biases)} biases ({config.bias})" if model.trained_biases else ""
    yield (
        f"  {'dora' if config.dora else 'lora'}: rank {ranks}, scale {scales}, dropout {config.dropout:g} on "
        f"{len(layers)} layers ({kinds}){whole}{biases}"
    )


def _span(numbers: Sequence[float]) -> str:
    """Write a number, or the least and the greatest of several, which are sorted."""
    return f"{numbers[0]:g}" if len(numbers) == 1 else f"{numbers[0]:g} to {numbers[-1]:g}"


def _rank_lines(args: TrainingArguments) -> Iterator[str]:
    """Say how several ranks share the run, after PaddleNLP has filled in what the config leaves open."""
    if args.world_size == 1:
        return
    split, models = max(args.tensor_parallel_degree, 1), args.dataset_world_size
    parts = [str(args.world_size)]
    parts += [f"tensor_parallel_degree {split}"] if split > 1 else []
    parts += [
        f"sharding {stage.value}, sharding_parallel_degree {args.sharding_parallel_degree}" for stage in args.sharding
    ]
    shared = f", each on {split} ranks" if split > 1 else ""
    parts.append(f"{models} models side by side{shared}" if models > 1 else f"1 model on {split} ranks")
    yield f"  ranks: {'; '.join(parts)}"


def _pack_lines(train: MixDataset, sampler: GlobalBatchSampler) -> Iterator[str]:
    if isinstance(sampler.plan, PackedRows):
        packs, capacity = sampler.first_rows, sampler.plan.planner.capacity
        fill = mean_fill(packs, sampler.plan.lengths, capacity)
        yield (
            f"  packs: {len(packs):,} of {capacity:,} tokens, {fill:.2%} full; {len(train) / len(packs):.1f} records a "
            f"pack, {_median_and_max([len(pack) for pack in packs])}"
        )


def _step_lines(sampler: GlobalBatchSampler, args: TrainingArguments) -> Iterator[str]:
    shape, unit = sampler.shape, "packs" if isinstance(sampler.plan, PackedRows) else "records"
    steps = count_steps(sampler.steps, args)
    degree = max(args.tensor_parallel_degree, 1)
    models = "cards" if degree == 1 else f"models, each on {degree} cards"
    yield (
        f"  steps: {steps:,} ({steps / sampler.steps:.2f} epochs of {sampler.steps:,}), each on {shape.all_rows} "
        f"{unit}: {shape.rows} a card x {shape.accumulation} accumulated x {shape.ranks} {models}; loss per "
        f"{sampler.loss_per}"
    )


def _rate_lines(model: nn.Layer, learning_rate: float) -> Iterator[str]:
    """List the highest rate of each module, where not all are the same."""
    factors = factors_by_module(model)
    if {factor for own in factors.values() for factor in own} == {1.0}:
        return
    yield f"  learning rates: {learning_rate:g}, but"
    for module, own in factors.items():
        if own != [1.0]:
            yield f"    {module:<24} {', '.join(f'{learning_rate * factor:g}' for factor in own)}"
