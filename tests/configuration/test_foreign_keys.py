"""Keys of other systems: those that mean the same are taken, the rest is refused with what to do instead."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

import paddlemix
from paddlemix.configuration.file import ConfigError, load_config
from paddlemix.configuration.foreign.rows import SYSTEMS
from paddlemix.configuration.foreign.table import FOREIGN_KEYS, TOPICS
from paddlemix.configuration.foreign.tables import foreign_tables
from paddlemix.configuration.keys import key_table

RECORDS = [{"name": "chatml_dataset", "data_files": "train.json"}]
MINIMAL = {"model_name_or_path": "m", "output_dir": "out", "do_train": True, "dataset": {"train": RECORDS}}
EVALUATED = {"dataset": {"train": RECORDS, "eval": RECORDS}}


def load(folder: Path, *flags: str, without: str = "", **keys: Any):
    given = {name: value for name, value in (MINIMAL | keys).items() if name != without}
    (folder / "run.json").write_text(json.dumps(given, indent=1), encoding="utf-8")
    return load_config(str(folder / "run.json"), flags, has_gpu=True)


def value_of(config: Any, key: str) -> Any:
    return (vars(config.model) | vars(config.data) | config.training)[key]


def problems_with(folder: Path, *flags: str, **keys: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, *flags, **keys)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


class TestTable:
    def test_every_row_sets_keys_that_exist_to_values_that_they_take(self, tmp_path):
        assert len(FOREIGN_KEYS) > 200
        for row in FOREIGN_KEYS.values():
            assert set(row.members) <= set(key_table()) and set(row.systems) <= set(SYSTEMS)
            assert not row.ours or row.ours in key_table()
            for settings in row.settings.values():
                assert settings and set(settings) <= set(key_table())

    def test_every_row_that_refuses_something_says_what_to_do(self):
        for row in FOREIGN_KEYS.values():
            takes_all = row.ours or row.idle is None or {"true", "false"} <= {*row.settings, *row.idle}
            names_theirs = row.name in ("optim", "device", "stopping_strategy", "mix_strategy")
            assert takes_all or row.advice or names_theirs, row.name
            assert not row.advice or row.advice.endswith("."), row.name

    def test_no_key_of_ours_changes_its_meaning(self):
        own = {row.name for row in FOREIGN_KEYS.values() if row.name in key_table()}
        assert own == {
            *("dataset", "device", "dtype", "lora_bias", "lr_scheduler_type", "optim", "report_to", "save_strategy"),
            "warmup_steps",
        }
        assert all(not FOREIGN_KEYS[name].ours and not FOREIGN_KEYS[name].idle for name in own)

    def test_no_name_stands_in_two_rows(self):
        assert sum(map(len, TOPICS.values())) == len(FOREIGN_KEYS)

    def test_the_page_of_the_keys_holds_the_tables_as_they_are_generated(self):
        page = (Path(paddlemix.__file__).parents[1] / "docs" / "config.md").read_text(encoding="utf-8")
        assert foreign_tables() in page


class TestTaken:
    @pytest.mark.parametrize(
        ("theirs", "value", "ours", "here"),
        [
            ("eval_strategy", "epoch", "evaluation_strategy", "epoch"),
            ("cutoff_len", 512, "max_length", 512),
            ("torch_dtype", "bfloat16", "dtype", "bfloat16"),
            ("torch_dtype", "torch.float16", "dtype", "float16"),
            ("vit_lr", 1e-5, "vision_learning_rate", 1e-5),
            ("aligner_lr", 1e-5, "aligner_learning_rate", 1e-5),
            ("gradient_checkpointing", True, "recompute", True),
            ("disable_gradient_checkpointing", True, "recompute", False),
            ("freeze_vision_tower", True, "freeze_vit", True),
            ("freeze_language_model", True, "freeze_llm", True),
            ("tune_mm_mlp", False, "freeze_aligner", True),
            ("train_mm_proj_only", True, "freeze_llm", True),
            ("finetuning_type", "full", "lora", False),
            ("train_type", "lora", "lora", True),
            ("packing", True, "mixtoken", True),
            ("image_max_pixels", 1000, "max_pixels", 1000),
            ("optim", "adamw_torch_fused", "optim", "adamw"),
            ("report_to", [], "report_to", "none"),
            ("deepspeed", "zero2", "sharding", "stage2"),
            ("lr_scheduler_kwargs", {"num_cycles": 2}, "num_cycles", 2),
            ("save_only_model", True, "ignore_save_lr_and_optim", True),
            ("truncation_strategy", "delete", "on_overlong", "skip"),
            ("model", "other", "model_name_or_path", "other"),
        ],
    )
    def test_a_key_that_means_the_same_is_taken_and_said(self, tmp_path, caplog, theirs, value, ours, here):
        caplog.set_level(logging.INFO, "paddlemix.configuration")
        precision = {"fp16": True} if here == "float16" else {}
        without = ours if ours == "model_name_or_path" else ""
        config = load(tmp_path, without=without, **EVALUATED, **precision, **{theirs: value})
        assert value_of(config, ours) == here
        (said,) = caplog.messages
        assert f"run.json:{config.place(ours).line}: `{theirs}` is taken as " in said and f"`{ours}`: " in said

    def test_adapters_of_others_are_ours(self, tmp_path):
        keys = {
            "tuner_type": "lora",
            "lora_r": 4,
            "lora_target": "all",
            "additional_target": "merger",
            "use_rslora": True,
        }
        config = load(tmp_path, **keys, lorap_lr_ratio=16)
        assert (config.model.lora, config.model.lora_rank, config.model.rslora) == (True, 4, True)
        assert (config.model.lora_target_modules, config.model.lora_modules_to_save) == ("all-linear", "merger")
        assert config.model.lora_plus_scale == 16

    def test_kinds_of_adapters_of_others_are_ours(self, tmp_path):
        keys = {"use_peft": True, "use_dora": True, "bias": "lora_only", "rank_pattern": {"q_proj": 4}}
        model = load(tmp_path, **keys, alpha_pattern={"q_proj": 8}).model
        assert (model.lora_dora, model.lora_bias) == (True, "lora_only")
        assert (model.lora_rank_pattern, model.lora_alpha_pattern) == ({"q_proj": 4}, {"q_proj": 8.0})
        # What PEFT's config holds by default asks for nothing.
        neutral = {"use_dora": False, "bias": "none", "rank_pattern": {}, "alpha_pattern": {}}
        model = load(tmp_path, use_rslora=False, **neutral).model
        assert (model.lora_dora, model.lora_bias, model.lora_rank_pattern) == (False, "none", {})

    def test_pefts_switch_for_biases_of_products_is_not_our_key(self, tmp_path):
        with pytest.raises(ConfigError, match="PEFT's switch of this name is for biases of products"):
            load(tmp_path, lora=True, lora_bias=True)

    def test_keys_that_ask_for_nothing_are_one_line(self, tmp_path, caplog):
        caplog.set_level(logging.INFO, "paddlemix.configuration")
        load(tmp_path, push_to_hub=False, fsdp=[], label_smoothing_factor=0.0, ddp_timeout=1800, stage="sft", tf32=None)
        assert caplog.messages == [
            "Taken for what is done anyway, or changes no result: `push_to_hub`, `fsdp`, `label_smoothing_factor`, "
            "`ddp_timeout`, `stage`."
        ]

    def test_flags_take_them_too_and_override_the_file_by_either_name(self, tmp_path):
        config = load(tmp_path, "--cutoff_len", "100", "--packing", "--gradient_checkpointing=false", max_length=50)
        assert (config.data.max_length, config.data.mixtoken, config.training["recompute"]) == (100, True, False)
        assert load(tmp_path, "--max_length", "100", cutoff_len=50).data.max_length == 100
        assert load(tmp_path, "--cutoff_len", "null", cutoff_len=50).data.max_length == 2048
        assert str(load(tmp_path, "--cutoff_len", "100").place("max_length")) == "--cutoff_len"

    def test_the_same_said_twice_is_taken_once(self, tmp_path):
        assert load(tmp_path, max_length=512, cutoff_len=512, max_seq_length=512).data.max_length == 512
        assert load(tmp_path, finetuning_type="lora", train_type="lora").model.lora is True


class TestRefused:
    def test_all_of_them_are_listed_by_line_with_what_to_do(self, tmp_path):
        problems = problems_with(
            tmp_path, template="qwen2_vl", val_size=0.1, deepspeed="ds_z3_config.json", neftune_noise_alpha=5
        )
        assert [problem.partition(". ")[0] for problem in problems] == [
            'run.json:13: unknown key `template` (value "qwen2_vl")',
            "run.json:14: unknown key `val_size` (value 0.1)",
            'run.json:15: unknown key `deepspeed` (value "ds_z3_config.json")',
            "run.json:16: unknown key `neftune_noise_alpha` (value 5)",
        ]
        assert '`splits` ":90%"' in problems[1] and "`sharding`" in problems[2] and '"stage3"' in problems[2]

    def test_the_same_key_by_two_names_with_two_values_is_refused(self, tmp_path):
        (problem,) = problems_with(tmp_path, max_length=512, cutoff_len=2048)
        assert problem == (
            "run.json:14: `cutoff_len` is 2048, which is `max_length`: 2048 here, but `max_length` is given as 512. "
            "Keep one of the two."
        )
        (problem,) = problems_with(tmp_path, disable_gradient_checkpointing=True, gradient_checkpointing=True)
        assert (
            "which is `recompute`: true here, but `recompute` (by `disable_gradient_checkpointing`) is given" in problem
        )

    @pytest.mark.parametrize(
        ("keys", "expected"),
        [
            ({"cutoff_len": 0}, "run.json:13 (`cutoff_len`): `max_length` is 0; expected a whole number, more than 0."),
            (
                {"torch_dtype": "auto"},
                '(`torch_dtype`): `dtype` is "auto"; expected one of "float32", "bfloat16", "float',
            ),
            ({"lora_r": 8}, "run.json:13 (`lora_r`): `lora_rank` has no effect unless `lora` is true."),
            ({"finetuning_type": "freeze"}, 'unknown key `finetuning_type` (value "freeze"). Set `"lora": true` for'),
            ({"optim": "paged_adamw_8bit"}, '`optim` is "paged_adamw_8bit"; expected one of "adamw"'),
            ({"report_to": "wandb"}, "or a list of them. Curves are logged with VisualDL only"),
            ({"dataset": "alpaca_en"}, '`dataset` is "alpaca_en"; expected an object with train, eval. Each set of'),
            (
                {"warmup_steps": 0.1},
                "`warmup_steps` is 0.1; expected a whole number. A share of all steps is `warmup_r",
            ),
            ({"lr_scheduler_kwargs": {"min_lr": 0}}, '`power` and `lr_end` of "polynomial"'),
            ({"quantization_bit": 3}, '(value 3). `"quantize"` rounds frozen weights while they are read'),
            ({"hub_token": "hf_secret"}, "unknown key `hub_token`. The environment variable HF_TOKEN holds the token"),
        ],
    )
    def test_what_is_not_taken_is_answered_with_ours(self, tmp_path, keys, expected):
        (problem,) = problems_with(tmp_path, **keys)
        assert expected in problem and "secret" not in problem

    def test_a_misspelled_key_of_others_is_answered_with_the_nearest(self, tmp_path):
        assert problems_with(tmp_path, "--cutof_len", "3")[0].endswith("Did you mean `cutoff_len`?")


# What transformers' TrainingArguments write of themselves where nothing of it was chosen.
UNCHOSEN = {
    "accelerator_config": {
        "split_batches": False,
        "dispatch_batches": None,
        "even_batches": True,
        "use_seedable_sampler": True,
        "non_blocking": False,
        "gradient_accumulation_kwargs": None,
    },
    "fsdp": [],
    "fsdp_config": {"min_num_params": 0, "xla": False, "xla_fsdp_v2": False, "xla_fsdp_grad_ckpt": False},
    "hub_token": "<HUB_TOKEN>",
    "push_to_hub_token": "<PUSH_TO_HUB_TOKEN>",
    "activation_checkpointing": False,
    "enable_jit_checkpoint": False,
    "use_cache": False,
    "dataloader_in_order": True,
}


def test_what_transformers_writes_of_settings_that_nobody_chose_is_taken(tmp_path: Path) -> None:
    assert load(tmp_path, **UNCHOSEN).training["recompute"] is False
    (problem,) = problems_with(tmp_path, **UNCHOSEN | {"hub_token": "hf_secret"})
    assert "HF_TOKEN" in problem and "secret" not in problem
    (problem,) = problems_with(tmp_path, accelerator_config={"split_batches": True})
    assert "take the key out" in problem


def test_names_of_older_releases_of_ms_swift_are_taken(tmp_path: Path) -> None:
    config = load(
        tmp_path, lora=True, deepspeed="default-zero2", lora_target_regex=".*q_proj", val_dataset_shuffle=False
    )
    assert config.training["sharding"] == "stage2" and config.model.lora_target_modules == ".*q_proj"
