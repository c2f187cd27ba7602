"""Every key is of a group that says what resuming a run makes of it, and groups hold keys that exist."""

from __future__ import annotations

import pytest

from paddlemix.configuration import groups
from paddlemix.configuration.arguments import DataArguments, ModelArguments, TrainingKeys
from paddlemix.configuration.keys import key_table, own_keys

# What a resumed run may change without a word: where and how often it evaluates, saves and logs, and how
# it computes the same numbers.
NO_MATTER = {
    *("output_dir", "resume_from_checkpoint", "report_to", "logging_steps", "skip_memory_metrics", "benchmark"),
    *("evaluation_strategy", "eval_steps", "per_device_eval_batch_size", "predict_with_generate", "max_new_tokens"),
    *("save_strategy", "save_steps", "early_stopping_patience", "early_stopping_threshold"),
    *("dataloader_num_workers", "recompute", "recompute_vit", "recompute_llm", "device", "release_grads"),
    "hybrid_parallel_topo_order",
}
OF_RESUMING = (groups.MODEL_KEYS, groups.SAMPLE_KEYS, groups.DRAW_KEYS, groups.FREE_KEYS, tuple(NO_MATTER))
# Of a config's sets some parts must be shared; how many cards there are stands in no config.
PARTS = {"dataset.train", "dataset.train.data_files", "cards"}


def test_every_key_of_ours_is_of_one_group_of_resuming() -> None:
    ours = own_keys(ModelArguments) | own_keys(DataArguments) | own_keys(TrainingKeys)
    for key in set(ours) - {"dataset"}:
        assert sum(key in group for group in OF_RESUMING) == 1, key


def test_no_key_is_in_a_group_twice_or_unknown() -> None:
    named = [key for group in OF_RESUMING for key in group]
    assert len(named) == len(set(named)) and set(named) - PARTS <= set(key_table())


@pytest.mark.parametrize("switch", groups.NEEDS)
def test_what_needs_a_switch_and_the_switch_are_keys(switch: str) -> None:
    assert groups.NEEDS[switch] and {switch, *groups.NEEDS[switch]} <= set(key_table())


def test_adapters_keys_and_those_of_freezing_are_all_there() -> None:
    assert {"lora_rank", "lora_target_modules", "rslora", "lora_plus_scale"} <= set(groups.NEEDS["lora"])
    assert "lora" not in groups.NEEDS["lora"] and len(groups.NEEDS["lora"]) == 13
    assert {"freeze_include", "freeze_exclude", *groups.FREEZE_SWITCHES} == set(groups.FREEZE_KEYS)
