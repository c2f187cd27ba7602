"""Every value of a key that lists its values trains, or is refused before anything is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
from paddlenlp.trainer.trainer_utils import IntervalStrategy, OptimizerNames, SchedulerType
from safetensors.numpy import load_file

from paddlemix.configuration import file as config_file
from paddlemix.configuration.keys import key_table, kinds, paddlenlp_keys
from paddlemix.configuration.problems import ConfigError
from paddlemix.tools import supervised_finetune

STEPS = 2
# What a value needs beside it to mean anything.
BESIDE: dict[str, dict[str, Any]] = {"fp16_opt_level": {"bf16": False}}
# PaddleNLP lists it, and has no such optimizer.
REFUSED = {("optim", "adafactor")}


# PaddleNLP's own enumerations, which may grow; TrainingArguments names them as text, or not at all.
ENUMERATIONS: dict[str, type[Enum]] = {
    "optim": OptimizerNames,
    "lr_scheduler_type": SchedulerType,
    "evaluation_strategy": IntervalStrategy,
    "logging_strategy": IntervalStrategy,
    "save_strategy": IntervalStrategy,
}


def choices() -> Iterator[tuple[str, str]]:
    for key, info in key_table().items():
        ours = {word for kind in kinds(info.annotation) if get_origin(kind) is Literal for word in get_args(kind)}
        if key in paddlenlp_keys() and ours:
            yield from ((key, word) for word in sorted(ours | {each.value for each in ENUMERATIONS.get(key, ())}))


CHOICES = list(choices())


@pytest.fixture
def train(tiny_checkpoint: Path, tmp_path: Path) -> Any:
    """A function that trains two steps by some keys; returns the run's folder."""
    records = [{"conversations": [["Count up.", " ".join(map(str, range(many)))]]} for many in (3, 5, 9, 4)]
    (tmp_path / "records.json").write_text(json.dumps(records))
    sets = [{"name": "chatml_dataset", "data_files": str(tmp_path / "records.json")}]

    def train(**keys: Any) -> Path:
        config = {
            "model_name_or_path": str(tiny_checkpoint),
            "dataset": {"train": sets, "eval": sets},
            "output_dir": str(tmp_path / "out"),
            "do_train": True,
            "max_steps": STEPS,
            "save_steps": 1,
            "learning_rate": 1e-3,
            "warmup_ratio": 0.0,
            "report_to": "none",
            "skip_memory_metrics": True,
            **keys,
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        supervised_finetune.run(config_file.load_config(str(tmp_path / "config.json"), has_gpu=False))
        return tmp_path / "out"

    return train


def test_the_keys_below_are_those_that_list_their_values() -> None:
    keys = {key for key, _ in CHOICES}
    assert keys >= {*ENUMERATIONS, "fp16_opt_level", "report_to"}
    assert {("optim", "adamw"), *REFUSED} <= set(CHOICES) and len(CHOICES) > 20


@pytest.mark.parametrize(("key", "value"), [choice for choice in CHOICES if choice not in REFUSED])
def test_each_trains_two_steps(train: Any, tiny_checkpoint: Path, key: str, value: str) -> None:
    folder = train(**{key: value}, **BESIDE.get(key, {}))
    before, after = load_file(tiny_checkpoint / "model.safetensors"), load_file(folder / "model.safetensors")
    assert any(not np.array_equal(before[name], after[name]) for name in before)
    assert all(np.isfinite(array).all() for array in after.values())


@pytest.mark.parametrize("value", sorted({value for key, value in CHOICES if key == "optim"} - {"adafactor"}))
def test_a_run_goes_on_with_each_optimizer(train: Any, value: str) -> None:
    folder = train(optim=value)
    whole = load_file(folder / "model.safetensors")
    shutil.rmtree(folder / f"checkpoint-{STEPS}")
    again = load_file(train(optim=value, resume_from_checkpoint=True) / "model.safetensors")
    assert [name for name in whole if not np.array_equal(whole[name], again[name])] == []


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (
            {"optim": "adafactor"},
            '`optim` is "adafactor"; expected one of "adamw", "adamw_mini", "adamw_custom", "adamw_16bit_moment".',
        ),
        ({"adafactor": True}, "Adafactor is not among them"),
        ({"hybrid_parallel_topo_order": "mp_first"}, 'expected one of "pp_first", "sharding_first"'),
        ({"device": "gpuu"}, '`device` is "gpuu"; expected "cpu", "gpu" or one card, such as "gpu:1".'),
        ({"bf16": True, "fp16_opt_level": "O0"}, '`bf16` is true while `fp16_opt_level` is "O0"'),
    ],
)
def test_others_are_refused_with_those_that_work(train: Any, keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        train(**keys)
    assert sentence in str(raised.value)
