"""Which keys of a config make a run another run."""

from __future__ import annotations

from typing import Any

from paddlemix.configuration.arguments import (
    DataArguments,
    DatasetArguments,
    DatasetItem,
    FinetuneConfig,
    ModelArguments,
)
from paddlemix.training.run_identity import KNOWN_KEYS, identity_keys


def config_with(**item: Any) -> FinetuneConfig:
    sets = DatasetArguments(train=[DatasetItem(name="auto", **item)])
    return FinetuneConfig(ModelArguments(model_name_or_path="m"), DataArguments(dataset=sets), {"seed": 3})


def test_moved_files_leave_the_sets_the_same_and_another_prompt_does_not() -> None:
    keys = [identity_keys(config_with(**item)) for item in ({"data_files": "a"}, {"data_files": "b"})]
    assert keys[0]["dataset.train"] == keys[1]["dataset.train"] and keys[0]["seed"] == 3
    assert keys[0]["dataset.train.data_files"] != keys[1]["dataset.train.data_files"]
    assert identity_keys(config_with(data_files="a", prompt="?"))["dataset.train"] != keys[0]["dataset.train"]


def test_no_key_means_two_things() -> None:
    assert len(set(KNOWN_KEYS.all)) == len(KNOWN_KEYS.all) > 40
