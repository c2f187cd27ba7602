"""finetune.py: what its flags stand for, and which of them are refused."""

from __future__ import annotations

import json
import shlex

import pytest

from paddlemix.configuration.arguments import DatasetItem, FinetuneConfig
from paddlemix.configuration.file import ConfigError, load_config
from paddlemix.examples.qwen_vl import finetune

# As PaddleMIX's page of Qwen-VL shows it, with the values it shows.
PUBLISHED = """
    --model_name_or_path qwen-vl/qwen-vl-chat-7b --data_path train.json --dtype 'bfloat16' --fix_vit True
    --output_dir output_qwen_vl --num_train_epochs 5 --per_device_train_batch_size 1 --gradient_accumulation_steps 16
    --save_steps 1000 --save_strategy "steps" --save_total_limit 10 --learning_rate 1e-5 --weight_decay 0.1
    --adam_beta2 0.95 --warmup_ratio 0.01 --lr_scheduler_type "cosine" --logging_steps 1 --report_to "none"
    --model_max_length 2048 --lazy_preprocess True
"""
IN_PARTS = '--sharding "stage2" --tensor_parallel_degree 1 --sharding_parallel_degree 8 --pipeline_parallel_degree 1'
FEWEST = "--model_name_or_path m --data_path train.json --output_dir out"


def read(flags: str, has_gpu: bool = True) -> FinetuneConfig:
    return finetune.read_flags(shlex.split(flags), has_gpu=has_gpu)


def problems(flags: str, has_gpu: bool = True) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(flags, has_gpu)
    return [str(problem) for problem in caught.value.problems]


def test_the_published_command_is_the_same_config_as_its_json(tmp_path):
    values = {
        "model_name_or_path": "qwen-vl/qwen-vl-chat-7b",
        "dataset": {"train": [{"name": "chatml_dataset", "data_files": "train.json"}]},
        "dtype": "bfloat16",
        "freeze_include": ["*visual*"],
        "freeze_exclude": ["*visual.attn_pool*"],
        "output_dir": "output_qwen_vl",
        "num_train_epochs": 5,
        "gradient_accumulation_steps": 16,
        "save_steps": 1000,
        "save_total_limit": 10,
        "report_to": "none",
        "bf16": True,
        "do_train": True,
    }
    (tmp_path / "run.json").write_text(json.dumps(values))
    by_file, by_flags = load_config(str(tmp_path / "run.json"), has_gpu=True), read(PUBLISHED)
    assert (by_flags.model, by_flags.data, by_flags.training) == (by_file.model, by_file.data, by_file.training)
    assert by_flags.data.max_length == 2048 and by_flags.training["learning_rate"] == 1e-5


def test_the_published_flags_of_several_cards_reach_their_keys():
    training = read(f"{PUBLISHED} {IN_PARTS}").training
    assert (training["sharding"], training["sharding_parallel_degree"]) == ("stage2", 8)
    assert (training["tensor_parallel_degree"], training["pipeline_parallel_degree"]) == (1, 1)


def test_a_pipeline_is_refused_as_in_a_config():
    [said] = problems(f"{PUBLISHED} --pipeline_parallel_degree 2")
    assert said.startswith("--pipeline_parallel_degree: `pipeline_parallel_degree` is 2, but")


def test_what_is_not_given_has_the_defaults_of_the_page():
    config = read(FEWEST)
    assert config.model.freeze_include == ["*visual*"] and config.model.freeze_exclude == ["*visual.attn_pool*"]
    assert config.training["bf16"] and config.training["do_train"]
    assert (config.training["gradient_accumulation_steps"], config.data.max_length) == (16, 2048)


def test_flags_with_names_of_their_own_reach_the_keys_that_they_stand_for():
    config = read(f'{FEWEST} --fix_vit False --model_max_length 512 --eval_data_path \'["a.json", "b.json"]\'')
    assert config.model.freeze_include is None and config.model.freeze_exclude is None
    assert config.data.max_length == 512
    assert config.data.dataset.train == [DatasetItem("chatml_dataset", ["train.json"])]
    assert config.data.dataset.eval == [DatasetItem("chatml_dataset", ["a.json", "b.json"])]


@pytest.mark.parametrize("fixed", ["", "--fix_vit True", "--fix_vit False"])
def test_adapters_leave_the_whole_tower_frozen_whatever_fix_vit_says(fixed):
    config = read(f"{FEWEST} --lora True --lora_rank 64 {fixed}")
    assert config.model.lora and config.model.lora_rank == 64
    assert config.model.freeze_include is None and config.model.freeze_exclude is None


def test_a_flag_of_two_keys_is_refused_for_each_that_is_given_as_well():
    said = problems(f"{FEWEST} --freeze_include '[\"a\"]' --freeze_exclude '[\"b\"]' --fix_vit True")
    assert [one.split(" sets")[0] for one in said] == ["--fix_vit: --freeze_include", "--fix_vit: --freeze_exclude"]


def test_every_key_of_a_config_is_a_flag_and_takes_precedence_over_the_defaults():
    sets = '{"train": [{"name": "vqa_dataset", "data_files": "vqa.json"}]}'
    words = f"--max_length 99 --max_steps 3 --freeze_include '[\"lm_head*\"]' --bf16 null --dataset '{sets}'"
    config = read(f"--model_name_or_path m --output_dir out {words}")
    assert (config.data.max_length, config.training["max_steps"]) == (99, 3)
    assert (config.model.freeze_include, config.model.freeze_exclude) == (["lm_head*"], None)
    assert config.training["bf16"], "null is the default of this script"
    assert [one.name for one in config.data.dataset.train] == ["vqa_dataset"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--fix_vi True", "--fix_vi: unknown key `fix_vi`. Did you mean `fix_vit`?"),
        ("--model_max_len 9", "--model_max_len: unknown key `model_max_len`. Did you mean `model_max_length`?"),
        ("--learning_rat 1", "--learning_rat: unknown key `learning_rat`. Did you mean `learning_rate`?"),
        ("--fix_vit maybe", '--fix_vit: `fix_vit` is "maybe"; expected true or false.'),
        ("--model_max_length 0", "--model_max_length: `max_length` is 0; expected a whole number, more than 0."),
        ("--model_max_length 9 --max_length 9", "--max_length: --model_max_length sets `max_length` as well; keep one"),
        ("--fix_vit True --freeze_include '[\"a\"]'", "--freeze_include: --fix_vit sets `freeze_include` as well"),
        ("--dataset '{}'", "--dataset: --data_path sets `dataset` as well; keep one of the two."),
        ("--lazy_preprocess False", "--lazy_preprocess: `lazy_preprocess` is false, but records are always prepared"),
        ("--fp16 True", "default of finetune.py: `bf16` and `fp16` are both true"),
        ("--lora_rank 4", "--lora_rank: `lora_rank` has no effect unless `lora` is true."),
        ("--lora True --freeze_llm True", "--freeze_llm: `freeze_llm` has no effect while `lora` is true"),
    ],
)
def test_a_flag_that_cannot_be_followed_is_refused_with_its_name(flags, expected):
    (said,) = problems(f"{FEWEST} {flags}")
    assert said.startswith(expected)


def test_everything_missing_is_reported_at_once():
    said = problems("")
    assert len(said) == 3
    assert said[0] == (
        "--data_path: `dataset.train[0].data_files` is null; expected a string or a list of strings, not empty."
    )
    assert [one.split(" is missing")[0] for one in said[1:]] == [
        "finetune.py: `model_name_or_path`",
        "finetune.py: `output_dir`",
    ]


def test_without_a_gpu_the_default_precision_is_refused_with_the_way_out():
    (said,) = problems(FEWEST, has_gpu=False)
    assert said.startswith("default of finetune.py: `bf16` is true, but this run has no GPU") and "--bf16 false" in said
    assert not read(f"{FEWEST} --bf16 False", has_gpu=False).training["bf16"]


def test_help_shows_an_example_and_every_flag_and_ends_the_program(capsys):
    with pytest.raises(SystemExit) as ended:
        read("--help")
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    for flag in (*finetune.ALIASES, "learning_rate", "sharding", "seed", "adam_beta2", "pipeline_parallel_degree"):
        assert flag in shown
    example = shown[shown.index("--model_name_or_path qwen-vl") : shown.index("Flags:")].replace("\\\n", " ")
    assert read(example).model.model_name_or_path == "qwen-vl/qwen-vl-chat-7b"
