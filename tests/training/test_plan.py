"""What is printed before the first step."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from paddlenlp.trainer import TrainingArguments
from paddlenlp.trainer.trainer_utils import ShardingOption

from paddlemix.auto import AutoModelMIX, AutoProcessorMIX
from paddlemix.configuration.arguments import FinetuneConfig
from paddlemix.configuration.file import build_training_arguments, load_config
from paddlemix.datasets.batching import Batching
from paddlemix.datasets.mix_dataset import DatasetSpec, MixDataset
from paddlemix.datasets.mixing.sampler import BatchShape
from paddlemix.training.freezing import freeze
from paddlemix.training.plan import describe_plan


@pytest.fixture
def train(shapes: Path, tiny_checkpoint: Path) -> MixDataset:
    processor = AutoProcessorMIX.from_pretrained(tiny_checkpoint)
    specs = [
        DatasetSpec("chatml_dataset", str(shapes / "train_grounding.json")),
        DatasetSpec("coco_caption", str(shapes / "train_caption.json")),
    ]
    return MixDataset.load(specs, processor)


def plan(
    tmp_path: Path,
    train: MixDataset,
    checkpoint: Path,
    pack_tokens: int | None = None,
    arguments: Callable[[FinetuneConfig], TrainingArguments] = build_training_arguments,
    **training: object,
) -> str:
    config = tmp_path / "config.json"
    config.write_text(
        '{"model_name_or_path": "m", "output_dir": "out", "do_train": true,'
        ' "dataset": {"train": [{"name": "coco_caption", "data_files": "t.json"}]}}'
    )
    flags = [word for key, value in training.items() for word in (f"--{key}", str(value))]
    args = arguments(load_config(str(config), flags, has_gpu=False))
    model = AutoModelMIX.from_pretrained(checkpoint)
    freeze(model, ["visual.blocks.*"], None)
    sampling = Batching(pack_tokens=pack_tokens)
    shape = BatchShape(args.per_device_train_batch_size, args.gradient_accumulation_steps)
    return describe_plan(model, train, None, args, sampling.training(train, shape, seed=0))


def test_numbers_of_records_and_tokens_are_those_of_the_sets(
    tmp_path: Path, train: MixDataset, tiny_checkpoint: Path
) -> None:
    text = plan(tmp_path, train, tiny_checkpoint)
    for summary in train.set_summaries():
        longest = max(size.tokens for size in summary.sizes)
        assert f"{summary.count} records; tokens a record median" in text and f"max {longest}" in text


def test_a_format_that_was_recognised_is_said_to_be(tmp_path: Path, shapes: Path, tiny_checkpoint: Path) -> None:
    processor = AutoProcessorMIX.from_pretrained(tiny_checkpoint)
    file = str(shapes / "train_grounding.json")
    train = MixDataset.load([DatasetSpec("auto", file), DatasetSpec("chatml_dataset", file)], processor)
    lines = plan(tmp_path, train, tiny_checkpoint).splitlines()
    assert f"  train: chatml_dataset, recognised from its records ({file})" in lines
    assert f"  train: chatml_dataset ({file})" in lines


def test_steps_and_effective_batch_follow_from_records_and_accumulation(
    tmp_path: Path, train: MixDataset, tiny_checkpoint: Path
) -> None:
    text = plan(
        tmp_path,
        train,
        tiny_checkpoint,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=3,
        num_train_epochs=2,
    )
    steps = 2 * math.ceil(len(train) / 6)
    assert len(train) % 6 and f"steps: {steps}" in text and "each on 6 records" in text


def test_packs_are_told_with_their_number_fill_and_records(
    tmp_path: Path, train: MixDataset, tiny_checkpoint: Path
) -> None:
    text = plan(tmp_path, train, tiny_checkpoint, pack_tokens=500, gradient_accumulation_steps=2)
    (line,) = [line for line in text.splitlines() if line.startswith("  packs:")]
    count = int(line.split()[1])
    tokens = sum(size.tokens for size in train.sizes)
    assert 1 < count < len(train) / 1.5
    assert f"packs: {count} of 500 tokens, {tokens / 500 / count:.2%} full" in line
    assert f"; {len(train) / count:.1f} records a pack, median " in line
    assert f"steps: {math.ceil(count / 2)} (" in text and "each on 2 packs" in text and "loss per token" in text


def test_trained_and_frozen_parameters_add_up(tmp_path: Path, train: MixDataset, tiny_checkpoint: Path) -> None:
    rows = [line.split() for line in plan(tmp_path, train, tiny_checkpoint).splitlines() if line.endswith("frozen")]
    model = AutoModelMIX.from_pretrained(tiny_checkpoint)
    counted = sum(int(row[1].replace(",", "")) + int(row[3].replace(",", "")) for row in rows)
    assert counted == sum(parameter.size for parameter in model.parameters())
    assert {row[0]: row[1] for row in rows}["visual.blocks"] == "0"


@pytest.mark.parametrize(
    ("degrees", "line"),
    [
        ({"data_parallel_degree": 8}, "8; 8 models side by side"),
        (
            {"sharding": "stage2", "sharding_parallel_degree": 4, "data_parallel_degree": 2},
            "8; sharding stage2, sharding_parallel_degree 4; 8 models side by side",
        ),
        (
            {"tensor_parallel_degree": 4, "sharding": "stage1", "sharding_parallel_degree": 2},
            "8; tensor_parallel_degree 4; sharding stage1, sharding_parallel_degree 2; 2 models side by side, each on "
            "4 ranks",
        ),
        ({"tensor_parallel_degree": 8}, "8; tensor_parallel_degree 8; 1 model on 8 ranks"),
    ],
)
def test_several_ranks_are_told_with_what_they_share(
    degrees: dict[str, object],
    line: str,
    tmp_path: Path,
    train: MixDataset,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def on_ranks(config: FinetuneConfig) -> TrainingArguments:
        """As PaddleNLP fills them in where eight processes were started."""
        args = build_training_arguments(config)
        monkeypatch.setattr(type(args), "world_size", 8)
        args.use_hybrid_parallel = True
        for key, value in degrees.items():
            setattr(args, key, [ShardingOption(value)] if key == "sharding" else value)
        return args

    assert "ranks:" not in plan(tmp_path, train, tiny_checkpoint)
    lines = plan(tmp_path, train, tiny_checkpoint, arguments=on_ranks).splitlines()
    assert [one for one in lines if "ranks:" in one] == [f"  ranks: {line}"]
