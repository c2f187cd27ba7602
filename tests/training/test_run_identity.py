"""Which keys of a config make a run another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paddlemix.checkpoints.identity import RunIdentity, check_same_run
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


def test_a_key_of_sets_that_is_not_given_says_nothing_to_runs_that_began_before_it_was_known() -> None:
    before = {"prompt": None, "max_samples": None, "splits": None, "seed": None, "weight": None, "repeat": 1.0}
    assert identity_keys(config_with(data_files="a"))["dataset.train"] == [{"name": "auto", **before}]
    assert identity_keys(config_with(data_files="a", unpack_limit=5))["dataset.train"] == [{"name": "auto", **before}]
    (given,) = identity_keys(config_with(data_files="a", ignore_keys=["score"]))["dataset.train"]
    assert given["ignore_keys"] == ["score"]


def test_other_checks_go_on_with_the_same_records_and_another_order_does_not() -> None:
    assert "shuffle" in KNOWN_KEYS.samples and {"check_media", "on_bad_record"} <= set(KNOWN_KEYS.draws)


@pytest.mark.parametrize(
    ("key", "spellings", "other"),
    [
        ("lora_target_modules", ["q_proj,v_proj", ["q_proj", "v_proj"], ["v_proj , q_proj"]], ["q_proj"]),
        ("lora_target_modules", [None, "all-linear", ["all-linear"]], "q_proj"),
        ("lora_modules_to_save", ["embed_tokens,lm_head", ["lm_head", "embed_tokens"]], None),
        ("lora_modules_to_save", [[], ""], None),
        ("lora_path", ["a", ["a"]], ["a", "b"]),
        ("lora_path", [["a", "b"]], ["b", "a"]),
        ("new_tokens", [["<a>"], [{"token": "<a>", "special": False}]], [{"token": "<a>", "special": True}]),
        ("freeze_include", [["a", "b"]], ["b"]),
        ("dataset.train", [[{"splits": ":90%"}], [{"splits": [":90%"]}]], [{"splits": None}]),
        ("dataset.train.data_files", [[{"data_files": "a"}], [{"data_files": ["a"]}]], [{"data_files": "b"}]),
    ],
)
def test_one_value_in_several_spellings_is_one_run(key: str, spellings: list[Any], other: Any) -> None:
    runs = [RunIdentity({key: value}, {}, "records") for value in spellings]
    for run in runs:
        assert not any(KNOWN_KEYS.changes(one.keys, run.keys, [key]) for one in runs)
        assert run.differences(runs[0], KNOWN_KEYS, ignore_data=False) == []
        (change,) = KNOWN_KEYS.changes({key: other}, run.keys, [key])
        assert change.startswith(f"`{key}` ")


def test_a_model_is_known_by_its_folder_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base").mkdir()
    monkeypatch.chdir(tmp_path)
    here, there = ({"lora": True, "model_name_or_path": name} for name in ("base", f"{tmp_path}/base/"))
    assert RunIdentity(there, {}, "x").differences(RunIdentity(here, {}, "x"), KNOWN_KEYS, ignore_data=False) == []


@pytest.mark.parametrize(
    ("before", "now", "way"),
    [
        ({}, {"freeze_vit": True}, "set `model_name_or_path` to {folder}."),
        ({"lora": True, "seed": 1}, {"lora": True, "seed": 2}, "set `model_name_or_path` to {folder}."),
        ({"lora": True, "lora_rank": 2}, {"lora": True, "lora_rank": 4}, "{folder}, with `create_new_adapter` true: a"),
        ({"lora": True}, {"lora": True, "lora_path": "a"}, "take `lora_path` out, and set `model_name_or_path` to"),
        ({"lora": True, "model_name_or_path": "m"}, {"lora": False}, "merge_lora_params.py makes of its adapter and m"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_a_way_that_is_none_of_another_refusal(
    tmp_path: Path, before: dict[str, Any], now: dict[str, Any], way: str
) -> None:
    known = {"lora": False, "lora_path": None, "freeze_vit": False, "seed": 0}
    RunIdentity({**known, **before}, {}, "x").write(tmp_path)
    with pytest.raises(ValueError, match="is of another run: ") as refused:
        check_same_run(tmp_path, RunIdentity({**known, **before, **now}, {}, "x"), KNOWN_KEYS, ignore_data=False)
    assert way.format(folder=tmp_path) in str(refused.value)
