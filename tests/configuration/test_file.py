"""The config of a fine-tuning run: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import dataclasses
import glob
import json
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paddlemix
from paddlemix.configuration.arguments import DatasetItem, TrainingKeys
from paddlemix.configuration.file import ConfigError, build_training_arguments, load_config, read_command_line
from paddlemix.configuration.help import changed_defaults, help_text, tables
from paddlemix.configuration.keys import expectation, key_table, keys_of_dataclass, own_keys, paddlenlp_keys
from paddlemix.configuration.rules import CONSISTENCY, NEEDS_GPU, NOT_YET, recomputes

PACKAGE = Path(paddlemix.__file__).parent
RECORDS = [{"name": "chatml_dataset", "data_files": "train.json"}]
MINIMAL = {"model_name_or_path": "m", "output_dir": "out", "do_train": True, "dataset": {"train": RECORDS}}

PADDLEMIX_QWEN_VL = {
    "model_name_or_path": "qwen-vl/qwen-vl-chat-7b",
    "dataset": {
        "train": [{"name": "chatml_dataset", "data_files": "train.json"}],
        "eval": [{"name": "chatml_dataset", "data_files": "val.json"}],
    },
    "mixtoken": True,
    "output_dir": "./checkpoints/qwen_vl_sft_ckpts",
    "overwrite_output_dir": True,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 16,
    "per_device_eval_batch_size": 1,
    "eval_accumulation_steps": 16,
    "num_train_epochs": 10,
    "learning_rate": 1e-5,
    "weight_decay": 0.1,
    "adam_beta2": 0.95,
    "warmup_ratio": 0.01,
    "lr_scheduler_type": "cosine",
    "logging_steps": 1,
    "save_steps": 100,
    "evaluation_strategy": "epoch",
    "save_strategy": "epoch",
    "max_length": 2048,
    "bf16": True,
    "fp16_opt_level": "O1",
    "do_train": True,
    "do_eval": False,
    "load_best_model_at_end": False,
    "save_total_limit": 1,
    "skip_memory_metrics": False,
    "benchmark": False,
}
ALL_BUT_THE_RESAMPLER = {"freeze_include": ["*visual*"], "freeze_exclude": ["*visual.attn_pool*"]}
OF_ONE_CONFIG = {
    "sft_argument": ALL_BUT_THE_RESAMPLER,
    "sft_argument_stage2": ALL_BUT_THE_RESAMPLER
    | {"sharding": "stage2", "tensor_parallel_degree": 1, "pipeline_parallel_degree": 1},
    "lora_sft_argument": {
        "num_train_epochs": 1,
        "lora": True,
        "lora_rank": 64,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "lora_target_modules": [".*attn.c_attn.*", ".*attn.c_proj.*", ".*mlp.w1.*", ".*mlp.w2.*"],
    },
}


def write(folder: Path, text: str) -> str:
    path = folder / "run.json"
    path.write_text(text, encoding="utf-8")
    return str(path)


def load(folder: Path, *flags: str, has_gpu: bool = True, **keys: Any):
    return load_config(write(folder, json.dumps(MINIMAL | keys, indent=1)), flags, has_gpu=has_gpu)


def problems_of(text: str, folder: Path, *flags: str, has_gpu: bool = True) -> list[str]:
    """What is wrong with a config, each problem without the folder in front."""
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, flags, has_gpu=has_gpu)
    assert all(str(problem) in str(caught.value) for problem in caught.value.problems)
    return [str(problem).replace(path, "run.json") for problem in caught.value.problems]


def problem_with(folder: Path, *flags: str, has_gpu: bool = True, **keys: Any) -> str:
    """The one thing that is wrong with the minimal config and some more keys, without its line."""
    (problem,) = problems_of(json.dumps(MINIMAL | keys), folder, *flags, has_gpu=has_gpu)
    return problem.removeprefix("run.json:1: ")


class Colour(Enum):
    RED = "red"


@dataclasses.dataclass
class Weird:
    """Hints of the kinds that PaddleNLP has, and some that say nothing."""

    must: str
    odd: object = 3
    nothing: object = None
    maybe: Optional[int] = None  # noqa: UP045 - the spelling PaddleNLP uses
    colour: Colour = Colour.RED
    names: list = dataclasses.field(default_factory=list)


OWN_TRAINING_KEYS = {
    "aligner_learning_rate",
    "benchmark",
    "early_stopping_patience",
    "early_stopping_threshold",
    "max_new_tokens",
    "predict_with_generate",
    "recompute_llm",
    "recompute_vit",
    "vision_learning_rate",
}


class TestAccepted:
    def test_keys_that_are_not_given_have_the_defaults_of_the_tables(self, tmp_path):
        config = load(tmp_path)
        assert config.model.lora_rank == 8
        assert config.data.max_length == 2048
        assert config.training["learning_rate"] == 1e-5
        assert config.training["seed"] == paddlenlp_keys()["seed"].default
        assert config.training["skip_memory_metrics"] is False

    def test_every_training_arguments_field_of_paddlenlp_is_a_key_and_gets_a_value(self, tmp_path):
        from paddlenlp.trainer import TrainingArguments

        names = {field.name for field in dataclasses.fields(TrainingArguments)}
        assert len(names) > 100
        assert names == set(paddlenlp_keys())
        assert names | OWN_TRAINING_KEYS == set(load(tmp_path).training)

    def test_our_training_keys_are_keys_of_paddlenlp_except_a_few(self):
        assert set(own_keys(TrainingKeys)) - set(paddlenlp_keys()) == OWN_TRAINING_KEYS

    def test_null_means_the_default_at_every_depth(self, tmp_path):
        records = [{"name": "vqa_dataset", "data_files": "a.json", "prompt": None}]
        config = load(
            tmp_path, learning_rate=None, max_pixels=None, seed=None, dataset={"train": records, "eval": None}
        )
        assert config.training["learning_rate"] == 1e-5
        assert config.training["seed"] == 42
        assert config.data.max_pixels is None
        assert config.data.dataset.eval == []
        assert config.data.dataset.train[0].prompt is None

    def test_a_whole_number_is_read_as_a_float_where_one_is_wanted(self, tmp_path):
        value = load(tmp_path, learning_rate=1).training["learning_rate"]
        assert (value, type(value)) == (1.0, float)

    def test_chinese_values_arrive_unchanged(self, tmp_path):
        records = [{"name": "caption_dataset", "data_files": "数据.json", "prompt": "描述这张图片。"}]
        assert load(tmp_path, dataset={"train": records}).data.dataset.train[0].prompt == "描述这张图片。"

    @pytest.mark.parametrize("degree", [-1, 1])
    def test_degrees_that_split_nothing_are_accepted(self, tmp_path, degree):
        names = ("tensor_parallel_degree", "sharding_parallel_degree", "pipeline_parallel_degree")
        keys = dict.fromkeys(names, degree)
        assert load(tmp_path, sharding="", **keys).training["tensor_parallel_degree"] == degree

    @pytest.mark.parametrize("value", [True, "out/checkpoint-3"])
    def test_resuming_takes_true_or_a_path(self, tmp_path, value):
        assert load(tmp_path, resume_from_checkpoint=value).training["resume_from_checkpoint"] == value

    @pytest.mark.parametrize("value", ["none", "visualdl", ["visualdl"], ["none"]])
    def test_report_to_takes_one_name_or_a_list(self, tmp_path, value):
        assert load(tmp_path, report_to=value).training["report_to"] == value

    def test_defaults_of_one_config_cannot_leak_into_the_next(self, tmp_path):
        load(tmp_path).data.dataset.eval.append(DatasetItem(name="x", data_files="x"))
        assert load(tmp_path).data.dataset.eval == []

    def test_a_file_with_byte_order_mark_tabs_and_windows_line_ends_is_read(self, tmp_path):
        path = tmp_path / "run.json"
        path.write_bytes(b"\xef\xbb\xbf" + json.dumps(MINIMAL, indent="\t").replace("\n", "\r\n").encode())
        assert load_config(str(path), has_gpu=True).model.model_name_or_path == "m"


class TestFileNames:
    def test_records_are_found_beside_the_config_if_the_current_folder_has_none(self, tmp_path, monkeypatch):
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        (tmp_path / "train.json").touch()
        assert load(tmp_path).data.dataset.train[0].data_files == [str(tmp_path / "train.json")]

    def test_the_current_folder_takes_precedence_over_the_folder_of_the_config(self, tmp_path, monkeypatch):
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        (tmp_path / "train.json").touch()
        (elsewhere / "train.json").touch()
        assert load(tmp_path).data.dataset.train[0].data_files == ["train.json"]

    def test_patterns_and_folders_are_looked_for_as_files_are(self, tmp_path, monkeypatch):
        beside = tmp_path / "run [1]"
        (beside / "deep" / "er").mkdir(parents=True)
        (beside / "deep" / "er" / "a.json").touch()
        monkeypatch.chdir(tmp_path)
        records = [{"name": "n", "data_files": ["deep", "deep/**/*.json", "*.jsonl"]}]
        files = load(beside, dataset={"train": records}).data.dataset.train[0].files
        assert files[0] == str(beside / "deep")
        assert glob.glob(files[1], recursive=True) == [str(beside / "deep" / "er" / "a.json")]
        assert files[2] == "*.jsonl"

    def test_records_that_are_nowhere_keep_their_name(self, tmp_path):
        records = [{"name": "n", "data_files": ["no/a.json", "/no/b.json"], "image_root": "no"}]
        item = load(tmp_path, dataset={"train": records}).data.dataset.train[0]
        assert item.files == ["no/a.json", "/no/b.json"]
        assert item.image_root == "no"

    def test_image_root_is_looked_for_as_records_are(self, tmp_path):
        (tmp_path / "images").mkdir()
        records = [{"name": "n", "data_files": "a.json", "image_root": "images"}]
        assert load(tmp_path, dataset={"train": records}).data.dataset.train[0].image_root == str(tmp_path / "images")


class TestWrongKeys:
    def test_one_error_lists_everything_by_line(self, tmp_path):
        text = """{
  "model_name_or_path": "m",
  "frezee_vit": true,
  "learning_rate": "1e-5",
  "seed": true, "max_length": 0,
  "dataset": {"train": [{"nam": "a",
      "data_files": ["a.json", 3]}, 4],
    "evl": []},
  "save_steps": 10,
  "evaluation_strategy": "step",
  "save_steps": 20,
  "do_predict": true
}"""
        assert problems_of(text, tmp_path) == [
            "run.json:3: unknown key `frezee_vit` (value true). Did you mean `freeze_vit`?",
            'run.json:4: `learning_rate` is "1e-5"; expected a number, more than 0. Drop the quotes: 1e-5',
            "run.json:5: `seed` is true; expected a whole number, at least 0, at most 2147483647.",
            "run.json:5: `max_length` is 0; expected a whole number, more than 0.",
            "run.json:6: `dataset.train[0].name` is missing; expected a string, not empty.",
            'run.json:6: unknown key `dataset.train[0].nam` (value "a"). Did you mean `name`?',
            "run.json:7: `dataset.train[0].data_files[1]` is 3; expected a string.",
            "run.json:7: `dataset.train[1]` is 4; expected an object with name, data_files, image_root, prompt, "
            "max_samples, splits, seed, weight, repeat, columns, markup, placeholders, join_turns, train_on, "
            "ignore_keys, unpack_limit.",
            "run.json:8: unknown key `dataset.evl` (value []). Did you mean `eval`?",
            'run.json:10: `evaluation_strategy` is "step"; expected one of "no", "steps", "epoch".',
            "run.json:11: `save_steps` is given 2 times; keep one of them.",
            "run.json:12: `do_predict` is true, but that is not available yet. Set it to false.",
            "run.json: `output_dir` is missing; expected a string, not empty. Add it, or give --output_dir.",
        ]

    @pytest.mark.parametrize(
        ("key", "value", "expected"),
        [
            ("learning_rate", True, "`learning_rate` is true; expected a number, more than 0."),
            ("learning_rate", 0, "`learning_rate` is 0; expected a number, more than 0."),
            ("bf16", 1, "`bf16` is 1; expected true or false."),
            ("bf16", "False", '`bf16` is "False"; expected true or false. Drop the quotes: false'),
            ("seed", 1.0, "`seed` is 1.0; expected a whole number, at least 0, at most 2147483647."),
            (
                "per_device_train_batch_size",
                0,
                "`per_device_train_batch_size` is 0; expected a whole number, at least 1.",
            ),
            ("lora_rank", 0, "`lora_rank` is 0; expected a whole number, at least 1, at most 65536."),
            ("lora_plus_scale", 0, "`lora_plus_scale` is 0; expected a number, more than 0."),
            (
                "lora_target_modules",
                [],
                "`lora_target_modules` is []; expected a string or a list of strings, not empty.",
            ),
            ("lora_dropout", 1.0, "`lora_dropout` is 1.0; expected a number, at least 0, less than 1."),
            ("freeze_include", "*visual*", '`freeze_include` is "*visual*"; expected a list of strings.'),
            ("freeze_include", [None], "`freeze_include[0]` is null; expected a string."),
            ("max_pixels", "1", '`max_pixels` is "1"; expected a whole number, more than 0. Drop the quotes: 1'),
            ("dtype", "half", '`dtype` is "half"; expected one of "float32", "bfloat16", "float16".'),
            ("on_bad_record", "warn", '`on_bad_record` is "warn"; expected one of "raise", "skip".'),
            ("report_to", "wandb", '`report_to` is "wandb"; expected one of "none", "visualdl" or a list of them.'),
            ("logging_strategy", "often", '`logging_strategy` is "often"; expected one of "no", "steps", "epoch".'),
            (
                "skip_data_intervals",
                [[1, "2"]],
                '`skip_data_intervals[0][1]` is "2"; expected a whole number. Drop the',
            ),
            ("dataset", [], "`dataset` is []; expected an object with train, eval."),
            (
                "lora_rank_pattern",
                {"q_proj": 0},
                '`lora_rank_pattern` is {"q_proj": 0}; expected an object in which each value is a whole number, at '
                "least 1, at most 65536.",
            ),
            ("output_dir", "", '`output_dir` is ""; expected a string, not empty.'),
            ("Learning-Rate", 1, "unknown key `Learning-Rate` (value 1). Did you mean `learning_rate`?"),
            ("zzzzqqqq", 1, "unknown key `zzzzqqqq` (value 1). --help lists the known keys."),
            ("mask_history", True, "unknown key `mask_history` (value true). Which turns are learned is `train_on` of"),
            ("loss_scale", "all", 'unknown key `loss_scale` (value "all"). Which turns are learned is `train_on` of'),
            ("train_on_prompt", True, "unknown key `train_on_prompt` (value true). Which turns are learned is `train_"),
        ],
    )
    def test_a_wrong_value_is_answered_with_what_was_expected(self, tmp_path, key, value, expected):
        config = dict(MINIMAL, dataset={"train": RECORDS, "eval": RECORDS})
        (problem,) = problems_of(json.dumps(config | {key: value}), tmp_path)
        assert problem.startswith(f"run.json:1: {expected}")

    @pytest.mark.parametrize("value", [{"str": 1}, {"list[str]": ["a"]}, 3, []])
    def test_data_files_of_a_wrong_shape_are_one_problem(self, tmp_path, value):
        problem = problem_with(tmp_path, dataset={"train": [{"name": "n", "data_files": value}]})
        assert problem == (
            f"`dataset.train[0].data_files` is {json.dumps(value)}; expected a string or a list of strings, not empty."
        )

    def test_a_long_value_is_cut(self, tmp_path):
        assert (
            problem_with(tmp_path, seed="x" * 500)
            == f'`seed` is "{"x" * 76}...; expected a whole number, at least 0, at most 2147483647.'
        )

    def test_half_a_surrogate_pair_is_a_wrong_value_of_its_key_alone(self, tmp_path):
        text = json.dumps(MINIMAL | {"output_dir": "\ud800", "logging_dir": "\ud83d\ude00", "seed": "x"}, indent=1)
        assert problems_of(text, tmp_path) == [
            'run.json:3: `output_dir` is "\ud800"; expected a string, not empty.',
            'run.json:14: `seed` is "x"; expected a whole number, at least 0, at most 2147483647.',
        ]

    def test_a_required_key_that_is_null_is_missing(self, tmp_path):
        text = json.dumps(MINIMAL | {"model_name_or_path": None})
        assert problems_of(text, tmp_path) == [
            "run.json: `model_name_or_path` is missing; expected a string, not empty. Add it, or give "
            "--model_name_or_path."
        ]

    def test_a_key_repeated_deep_inside_is_found(self, tmp_path):
        text = """{"model_name_or_path": "m", "output_dir": "o", "do_train": true,
"dataset": {"train": [{"name": "a", "data_files": "b"}, {"name": "a",
"data_files": "b",
"name": "c"}]}}"""
        assert problems_of(text, tmp_path) == [
            "run.json:4: `dataset.train[1].name` is given 2 times; keep one of them."
        ]

    def test_a_rule_says_nothing_about_a_key_that_is_wrong_already(self, tmp_path):
        (problem,) = problems_of(json.dumps(MINIMAL | {"do_train": "yes"}), tmp_path)
        assert "expected true or false" in problem

    def test_a_rule_about_scores_says_nothing_beside_a_wrong_strategy(self, tmp_path):
        keys = evaluated_by_answers("caption_cider", ["vqav2"]) | {"evaluation_strategy": "often"}
        assert "expected one of" in problem_with(tmp_path, **keys)

    @settings(deadline=None, derandomize=True)
    @given(
        st.dictionaries(
            st.text(max_size=9) | st.sampled_from(["dataset", "seed", "report_to", "learning_rate"]),
            st.recursive(
                st.none()
                | st.booleans()
                | st.integers()
                | st.floats(allow_nan=False, allow_infinity=False)
                | st.text(),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["train", "eval", "name", "data_files", "str", "x/y"]), inner)
                ),
                max_leaves=8,
            ),
            max_size=4,
        )
    )
    def test_any_json_object_ends_in_a_config_error_or_in_a_config(self, tmp_path_factory, keys):
        path = write(tmp_path_factory.mktemp("any"), json.dumps(keys))
        # Nothing drawn here can give the required keys.
        with pytest.raises(ConfigError, match="`output_dir` is missing"):
            load_config(path, has_gpu=False)


class TestBrokenFiles:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ('{\n "seed": 1\n "bf16": true}', "run.json:3: not valid JSON at column 2: Expecting ',' delimiter."),
            ("", "run.json:1: not valid JSON at column 1: Expecting value."),
            ("[1]", 'run.json:1: holds [1]; expected an object: { "key": value, ... }.'),
            ('{"learning_rate": NaN}', "run.json: NaN is not valid JSON; expected a finite number."),
            ('{"learning_rate": 1e999}', "run.json: 1e999 is too large for a number; expected a finite one."),
            (
                '{"a": 1, // one\n"b": 2}',
                "run.json:1: not valid JSON at column 10: Expecting property name enclosed in",
            ),
            ("[" * 100_000, "run.json: the JSON is nested more than 20 levels deep."),
            ('{"seed":' + "[" * 400 + "]" * 400 + "}", "run.json: the JSON is nested more than 20 levels deep."),
        ],
    )
    def test_a_file_that_is_no_json_object_is_named_with_the_place(self, tmp_path, text, expected):
        (problem,) = problems_of(text, tmp_path)
        assert problem.startswith(expected)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (
                '{"a": 1, // one\n"b": 2}',
                "JSON has no comments: take it out, or write the config in YAML, as config.yaml.",
            ),
            ('{"a": 1 /* one */}', "JSON has no comments:"),
            ('# one\n{"a": 1}', "JSON has no comments:"),
            ('{"a": 1,\n}', "JSON has no comma before a closing bracket: take it out."),
            ('{"a": [1, 2, ]}', "JSON has no comma before a closing bracket:"),
            ("{'a': 1}", 'JSON has double quotes: write "..." in place of'),
            ("{\"a\": 'b'}", "JSON has double quotes:"),
            ("{a: 1}", 'Keys stand in double quotes, as in {"seed": 1}.'),
            ('{"a": 1 "b": 2}', "Look for a missing comma, quote or bracket there."),
            ('{"a": True}', "JSON spells them true, false and null."),
        ],
    )
    def test_what_json_has_not_is_told_where_it_stands(self, tmp_path, text, expected):
        (problem,) = problems_of(text, tmp_path)
        assert "not valid JSON at column" in problem and expected in problem

    def test_a_file_that_is_not_there_is_named(self, tmp_path):
        with pytest.raises(ConfigError, match=r"none\.json: cannot be read: No such file"):
            load_config(str(tmp_path / "none.json"), has_gpu=True)

    def test_a_file_that_is_not_utf8_is_named_with_the_byte(self, tmp_path):
        path = tmp_path / "gbk.json"
        path.write_bytes('{"output_dir": "狗"}'.encode("gbk"))
        with pytest.raises(ConfigError, match=r"gbk\.json: is not UTF-8: byte 16"):
            load_config(str(path), has_gpu=True)


class TestCommandLine:
    def test_flags_override_the_file_and_are_read_by_the_type_of_the_key(self, tmp_path):
        flags = ["--learning_rate", "3e-4", "--seed=7", "--bf16", "false", "--output_dir", "123", "--max_steps", "-1"]
        flags += [
            "--freeze_include",
            '["*visual*"]',
            "--report_to",
            "none",
            "--max_pixels",
            "null",
            "--weight_decay=.5",
        ]
        config = load(tmp_path, *flags, learning_rate=1, seed=1, bf16=True, max_pixels=100)
        assert config.training["learning_rate"] == 3e-4
        assert config.training["seed"] == 7
        assert config.training["bf16"] is False
        assert config.training["output_dir"] == "123"
        assert config.training["max_steps"] == -1
        assert config.training["report_to"] == "none"
        assert config.training["weight_decay"] == 0.5
        assert config.model.freeze_include == ["*visual*"]
        assert config.data.max_pixels is None

    def test_a_list_of_texts_may_be_given_word_by_word(self, tmp_path):
        flags = ["--lora", "--lora_target_modules", "q_proj", ".*v_proj", "--max_steps", "-1"]
        config = load(tmp_path, *flags, "--modules_to_save=lm_head", "embed_tokens", lora=True, do_train=True)
        assert config.model.lora_target_modules == ["q_proj", ".*v_proj"]
        assert config.model.lora_modules_to_save == ["lm_head", "embed_tokens"]

    def test_a_flag_repairs_a_wrong_value_of_the_file(self, tmp_path):
        assert load(tmp_path, "--seed", "3", seed="x").training["seed"] == 3

    def test_a_true_or_false_key_may_stand_alone(self, tmp_path):
        config = load(tmp_path, "--overwrite_output_dir", "--benchmark")
        assert config.training["overwrite_output_dir"] is True
        assert config.training["benchmark"] is True

    @pytest.mark.parametrize(
        ("text", "value"), [("true", True), ("False", False), ("out/checkpoint-1", "out/checkpoint-1")]
    )
    def test_resuming_is_true_false_or_a_path(self, tmp_path, text, value):
        assert load(tmp_path, "--resume_from_checkpoint", text).training["resume_from_checkpoint"] == value

    def test_the_dataset_is_given_as_json(self, tmp_path):
        flag = '{"train": [{"name": "n", "data_files": ["a", "b"], "max_samples": 3}]}'
        (item,) = load(tmp_path, "--dataset", flag).data.dataset.train
        assert (item.files, item.max_samples) == (["a", "b"], 3)

    @pytest.mark.parametrize(
        ("flags", "expected"),
        [
            (["--sed", "3"], "--sed: unknown key `sed`. Did you mean `seed`?"),
            (["--seed", "x"], '--seed: `seed` is "x"; expected a whole number, at least 0, at most 2147483647.'),
            (["--seed", "1.5"], "--seed: `seed` is 1.5; expected a whole number, at least 0, at most 2147483647."),
            (["--learning_rate", "nan"], '--learning_rate: `learning_rate` is "nan"; expected a number, more than 0.'),
            (["--seed"], "--seed: no value follows it; expected a whole number, at least 0, at most 2147483647."),
            (
                ["--seed", "--bf16", "false"],
                "--seed: no value follows it; expected a whole number, at least 0, at most 2147483647.",
            ),
            (["--seed", "1", "--seed=1"], "--seed: `seed` is given more than once; keep one of them."),
            (["--bf16", "maybe"], '--bf16: `bf16` is "maybe"; expected true or false.'),
            (["stray"], "argument `stray`: it belongs to no key."),
            (["--seed", "1", "2"], "argument `2`: it belongs to no key."),
            (["-lr", "2"], "argument `-lr`: it is no flag. Names of keys stand behind two dashes: --lr."),
            (
                ["--lora", "--lora_target_modules", "a", "-lr"],
                "argument `-lr`: it is no flag. Names of keys stand behind two",
            ),
            (["--dataset", "{"], "--dataset: not valid JSON at column 2"),
            (
                ["--dataset", '{"eval": [], "eval": []}'],
                "--dataset: keys given more than once: eval; keep one of each.",
            ),
            (
                ["--dataset", '{"trian": []}'],
                "--dataset: unknown key `dataset.trian` (value []). Did you mean `train`?",
            ),
            (["--freeze_include", "a"], '--freeze_include: `freeze_include` is "a"; expected a list of strings.'),
            (["--optim", "sgd"], '--optim: `optim` is "sgd"; expected one of "adamw"'),
        ],
    )
    def test_a_wrong_flag_is_named_with_its_dashes(self, tmp_path, flags, expected):
        assert problem_with(tmp_path, *flags).startswith(expected)

    def test_problems_of_the_file_come_before_those_of_the_command_line(self, tmp_path):
        problems = problems_of(json.dumps(MINIMAL | {"sede": 1}), tmp_path, "--sed", "3")
        assert [problem.split(": unknown")[0] for problem in problems] == ["run.json:1", "--sed"]

    def test_help_shows_an_example_and_every_key_and_ends_the_program(self, capsys):
        with pytest.raises(SystemExit) as ended:
            read_command_line(["any.json", "--help"], has_gpu=True)
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        assert shown == help_text()
        words = set(shown.replace(",", " ").replace(":", " ").split())
        assert set(key_table()) <= words

    def test_the_example_of_the_help_is_a_config_that_loads(self, tmp_path):
        text = help_text()
        example = text[text.index("{\n") : text.index("\n}") + 2]
        assert load_config(write(tmp_path, example), has_gpu=True).model.freeze_vit is True

    @pytest.mark.parametrize("arguments", [[], ["--seed", "3"]])
    def test_a_command_line_without_a_config_says_how_to_write_one(self, arguments):
        with pytest.raises(ConfigError, match=r"expected a config file first\. Usage: .* CONFIG\.json"):
            read_command_line(arguments, has_gpu=True)

    def test_places_tell_where_a_key_was_given(self, tmp_path):
        config = load(tmp_path, "--seed", "3")
        assert str(config.place("seed")) == "--seed"
        assert str(config.place("output_dir")).endswith("run.json:3")
        assert str(config.place("bf16")).endswith("run.json")


def evaluated_by_answers(metric: str, sets: list[str]) -> dict[str, Any]:
    given = [{"name": name, "data_files": "eval.json"} for name in sets]
    return {
        "dataset": {"train": RECORDS, "eval": given},
        "do_eval": True,
        "predict_with_generate": True,
        "metric_for_best_model": metric,
    }


class TestRules:
    def test_every_rule_reads_keys_that_exist_and_can_write_its_sentence(self, tmp_path):
        rules = NOT_YET + CONSISTENCY + NEEDS_GPU
        config = load(tmp_path)
        values = config.training | vars(config.model) | vars(config.data)
        assert len(rules) > 30
        for rule in rules:
            assert set(rule.keys) <= set(key_table())
            assert not rule.broken(values) or rule.only_if_given
            assert rule.sentence.format_map(values)

    @pytest.mark.parametrize(
        ("keys", "expected"),
        [
            (
                {"dataset": {"train": [{"name": "n", "data_files": "a", "weight": 2}]}},
                "a set of `dataset.train` has a `weight`, which has no effect",
            ),
            (
                {
                    "dataset": {
                        "train": [{"name": "n", "data_files": "a"}],
                        "eval": [{"name": "n", "data_files": "a", "repeat": 2}],
                    }
                },
                "a set of `dataset.eval` has a `weight` or `repeat`",
            ),
            ({"mixtoken_window": 64}, "`mixtoken_window` has no effect unless `mixtoken` is true."),
            ({"mixtoken": True, "group_by_length": True}, "`group_by_length` and `mixtoken` are both true;"),
            ({"shuffle": False, "group_by_length": True}, "`group_by_length` is true and `shuffle` false,"),
            (
                {"shuffle": False, "mixtoken": True, "mixtoken_window": 64},
                "`mixtoken_window` has no effect while `shuffle` is false",
            ),
            ({"pipeline_parallel_degree": 2}, "`pipeline_parallel_degree` is 2, but splitting a model over cards in"),
            ({"pipeline_parallel_degree": 4}, "`pipeline_parallel_degree` is 4, but"),
            ({"sharding_parallel_config": "split_param"}, '`sharding_parallel_config` is "split_param", but none of'),
            ({"sharding": "stage3 offload"}, '`sharding` is "stage3 offload", but PaddleNLP 3.0.0b4 does not support'),
            (
                {"release_grads": True, "sharding": "stage2"},
                '`release_grads` is true while `sharding` is "stage2", which',
            ),
            ({"save_sharded_model": True}, "`save_sharded_model` is true, but that is not available yet."),
            ({"refined_recompute": "flash_attn:2"}, '`refined_recompute` is "flash_attn:2", but blocks are'),
            ({"do_predict": True}, "`do_predict` is true, but that is not available yet."),
        ],
    )
    def test_keys_of_later_work_are_refused_with_a_sentence(self, tmp_path, keys, expected):
        assert problem_with(tmp_path, **keys).startswith(expected)

    @pytest.mark.parametrize(
        ("keys", "expected"),
        [
            ({"do_train": False}, "nothing to do: `do_train` and `do_eval` are both false."),
            ({"dataset": {"eval": RECORDS}}, "`do_train` is true, but `dataset.train` lists no records."),
            ({"do_eval": True}, "`do_eval` or `evaluation_strategy` asks for evaluation, but `dataset.eval` lists no"),
            ({"evaluation_strategy": "epoch"}, "`do_eval` or `evaluation_strategy` asks for evaluation, but"),
            ({"min_pixels": 10, "max_pixels": 9}, "`min_pixels` is 10, more than `max_pixels`, which is 9."),
            ({"min_frames": 8, "max_frames": 4}, "`min_frames` is 8, more than `max_frames`, which is 4."),
            (
                {"video_min_pixels": 3, "video_max_pixels": 2},
                "`video_min_pixels` is 3, more than `video_max_pixels`, which is 2.",
            ),
            ({"fps": 1, "nframes": 8}, "`fps` and `nframes` are both set, but only one of them can choose"),
            ({"resized_width": 56}, "one of `resized_height` and `resized_width` is set; set both or none."),
            ({"bf16": True, "fp16": True}, "`bf16` and `fp16` are both true; expected at most one."),
            ({"lora_rank": 8}, "`lora_rank` has no effect unless `lora` is true. Take the key out, or set"),
            ({"lora_plus_scale": 4, "lora": False}, "`lora_plus_scale` has no effect unless `lora` is true."),
            ({"lora": True, "freeze_llm": True}, "`freeze_llm` has no effect while `lora` is true: all but the"),
            (
                {"lora": True, "freeze_vit": True, "lora_target_modules": ".*proj"},
                "`freeze_vit` has no effect while `lora` is true: all but the",
            ),
            (
                {"lora": True, "freeze_aligner": True, "lora_modules_to_save": ["visual.merger.mlp.0"]},
                "`freeze_aligner` has no effect while `lora` is true: all but the",
            ),
            ({"lora": True, "freeze_exclude": ["*"]}, "`freeze_exclude` has no effect while `lora` is true:"),
            (
                {"freeze_vit": True, "freeze_llm": True, "freeze_aligner": True},
                "`freeze_vit`, `freeze_llm` and `freeze_aligner` are all true, which leaves nothing to train.",
            ),
            ({"load_best_model_at_end": True}, "`load_best_model_at_end` needs an evaluation with every checkpoint"),
            ({"predict_with_generate": True}, "`predict_with_generate` has no effect without an evaluation."),
            ({"max_new_tokens": 3}, "`max_new_tokens` has no effect unless `predict_with_generate` is true."),
            ({"metric_for_best_model": "vqa_exact_match"}, '`metric_for_best_model` is "vqa_exact_match", but'),
            ({"early_stopping_patience": 3}, "`early_stopping_patience` is 3, but the best evaluation is not kept."),
            ({"early_stopping_threshold": 0.1}, "`early_stopping_threshold` has no effect unless"),
            ({"lr_scheduler_type": "constant", "warmup_ratio": 0.1}, "`warmup_ratio` is 0.1, which has no effect"),
            ({"lr_scheduler_type": "constant", "warmup_steps": 5}, "`warmup_steps` is 5, which has no effect"),
            ({"sharding": "stage4"}, '`sharding` is "stage4"; expected "stage1", "stage2", "stage3" or "".'),
            ({"sharding": "stage2 stage3"}, '`sharding` is "stage2 stage3"; expected'),
            ({"sharding_parallel_degree": 2}, "`sharding_parallel_degree` is 2, which has no effect while `sharding`"),
            ({"sharding": "stage1", "sharding_degree": 2}, "`sharding_degree` is PaddleNLP's old name."),
            ({"report_to": ["none", "visualdl"]}, '`report_to` lists "none" beside "visualdl"'),
            ({"tensor_parallel_degree": 2, "lora": True}, "`tensor_parallel_degree` is 2 while `lora` is true, but"),
            (
                {"tensor_parallel_degree": 2, "sharding": "stage2"},
                '`tensor_parallel_degree` is 2 while `sharding` is "stage2", but Paddle clips gradients',
            ),
            (
                {"tensor_parallel_config": "sync_param enable_mp_async_allreduce"},
                '`tensor_parallel_config` is "sync_param enable_mp_async_allreduce", but the models\' own layers',
            ),
        ],
    )
    def test_values_that_contradict_one_another_are_refused(self, tmp_path, keys, expected):
        assert problem_with(tmp_path, **keys).startswith(expected)

    @pytest.mark.parametrize(
        ("metric", "sets", "expected"),
        [
            ("vqa_exact_mach", ["vqa_dataset"], '"vqa_exact_mach", which no evaluation gives. Set it to "loss" or one'),
            ("eval_runtime", ["vqa_dataset"], '"eval_runtime", which no evaluation gives.'),
            ("caption_cider", ["vqav2", "llava"], "no set of `dataset.eval` can have caption scores. Add one of these"),
            (
                "grounding_mean_iou",
                ["coco_caption"],
                "can have grounding scores. Add one of these formats: messages, openai",
            ),
        ],
    )
    def test_a_metric_that_no_evaluation_of_the_run_gives_is_refused(self, tmp_path, metric, sets, expected):
        given = problem_with(tmp_path, **evaluated_by_answers(metric, sets))
        assert given.startswith(f'`metric_for_best_model` is "{metric}", ') and expected in given

    @pytest.mark.parametrize(
        ("metric", "sets"),
        [
            ("eval_loss", ["vqa_dataset"]),
            ("eval_vqa_exact_match", ["coco_caption", "ocrvqa_val"]),
            ("grounding_accuracy@0.5", ["refcoco"]),
            ("caption_cider", ["auto"]),
            ("caption_cider", ["a_format_that_loading_refuses"]),
        ],
    )
    def test_a_metric_that_the_sets_may_give_is_accepted(self, tmp_path, metric, sets):
        config = load(tmp_path, **evaluated_by_answers(metric, sets))
        assert config.training["metric_for_best_model"] == metric

    def test_lora_goes_with_freeze_keys_that_freeze_nothing(self, tmp_path):
        config = load(tmp_path, lora=True, freeze_vit=False, freeze_include=[], rslora=True, lora_modules_to_save=[])
        assert config.model.lora and config.model.rslora and config.model.lora_modules_to_save == []

    @pytest.mark.parametrize("targets", [None, "all-linear", ["all-linear"]])
    def test_lora_on_the_language_model_goes_with_a_frozen_tower_and_says_so(self, tmp_path, caplog, targets):
        caplog.set_level("INFO")
        keys = {"freeze_vit": True, "freeze_aligner": False, "lora_target_modules": targets}
        assert load(tmp_path, lora=True, **keys).model.freeze_vit
        said = caplog.messages
        assert any("`freeze_vit`: adapters are on layers of the language model alone." in one for one in said)
        assert any("`freeze_aligner`: adapters" in one and "in `lora_target_modules`." in one for one in said)
        caplog.clear()
        assert load(tmp_path, lora=True, lora_target_modules=targets)
        assert not caplog.messages

    def test_a_constant_rate_accepts_a_warm_up_of_zero(self, tmp_path):
        assert load(tmp_path, lr_scheduler_type="constant").training["warmup_ratio"] == 0.01
        assert load(tmp_path, lr_scheduler_type="constant", warmup_ratio=0).training["warmup_ratio"] == 0

    @pytest.mark.parametrize("sharding", ["stage1", "stage2", "stage3"])
    def test_stages_of_sharding_are_accepted(self, tmp_path, sharding):
        assert load(tmp_path, sharding=sharding, sharding_parallel_degree=2).training["sharding"] == sharding

    def test_saving_between_evaluations_cannot_keep_the_best_model(self, tmp_path):
        both = {"train": RECORDS, "eval": RECORDS}
        keys = {"dataset": both, "load_best_model_at_end": True, "evaluation_strategy": "steps", "save_steps": 10}
        assert load(tmp_path, **keys, eval_steps=5).training["save_steps"] == 10
        assert "`save_steps`, which is 10, is no multiple" in problem_with(tmp_path, **keys, eval_steps=4)

    def test_evaluation_alone_needs_no_training_records(self, tmp_path):
        assert load(tmp_path, do_train=False, do_eval=True, dataset={"eval": RECORDS}).training["do_eval"] is True

    @pytest.mark.parametrize("level", ["O1", "O2"])
    @pytest.mark.parametrize("key", ["bf16", "fp16", "bf16_full_eval", "fp16_full_eval"])
    def test_half_precision_is_refused_without_a_gpu_only(self, tmp_path, key, level):
        keys = {key: True, "fp16_opt_level": level}
        assert load(tmp_path, **keys, has_gpu=True).training[key] is True
        for has_gpu, more in ((False, {}), (True, {"device": "cpu"}), (True, {"no_cuda": True})):
            problem = problem_with(tmp_path, **keys, **more, has_gpu=has_gpu)
            assert "CPU build has no kernels for half precision" in problem
            assert f'Set "{key}": false' in problem and '"cpu_compute_dtype": "bfloat16"' in problem
        assert load(tmp_path, **keys, device="gpu", no_cuda=True, has_gpu=True).training[key] is True

    @pytest.mark.parametrize(("key", "instead"), [("bf16", "fp16"), ("bf16_full_eval", "fp16_full_eval")])
    def test_bfloat16_is_refused_on_a_card_before_ampere_with_the_key_to_write(self, tmp_path, key, instead):
        path = write(tmp_path, json.dumps(MINIMAL | {key: True}))
        with pytest.raises(ConfigError) as caught:
            load_config(path, has_gpu=True, before_ampere=True)
        (problem,) = caught.value.problems
        assert "compute capability 8.0 (Ampere)" in str(problem) and f'Set "{key}": false and "{instead}": true' in str(
            problem
        )
        words = [f"--{key}", "false", f"--{instead}", "true"]
        assert load_config(path, words, has_gpu=True, before_ampere=True).training[instead] is True
        assert load_config(path, has_gpu=True).training[key] is True  # an estimate for another card

    def test_weights_in_bfloat16_are_refused_on_a_card_before_ampere(self, tmp_path):
        path = write(tmp_path, json.dumps(MINIMAL | {"dtype": "bfloat16"}))
        with pytest.raises(ConfigError, match='`dtype` is "bfloat16".*8.0.*Set "dtype": "float16" and "fp16": true'):
            load_config(path, has_gpu=True, before_ampere=True)
        flags = ["--dtype", "float16", "--fp16", "true"]
        assert load_config(path, flags, has_gpu=True, before_ampere=True).model.dtype == "float16"

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("dtype", "bfloat16"),
            ("dtype", "float16"),
            ("device", "gpu"),
            ("sharding", "stage2"),
            ("sharding", "stage3"),
        ],
    )
    def test_other_values_that_need_a_gpu_are_refused_without_one(self, tmp_path, key, value):
        load(tmp_path, **{key: value}, fp16=value == "float16", has_gpu=True)
        assert problem_with(tmp_path, **{key: value}, has_gpu=False).startswith(
            f'`{key}` is "{value}", but {"Paddle sees no" if key == "device" else "this run has no GPU"}'
        )


class TestTypesOfOtherDataclasses:
    def test_hints_that_say_nothing_give_way_to_the_type_of_the_default(self):
        keys = keys_of_dataclass(Weird)
        assert keys["must"].is_required()
        assert expectation(keys["odd"]) == "a whole number"
        assert expectation(keys["nothing"]) == "any JSON value"
        assert expectation(keys["maybe"]) == "a whole number"
        assert keys["colour"].annotation == Literal["red"]
        assert keys["colour"].default == "red"
        assert keys["names"].default == []

    def test_hints_that_cannot_be_resolved_give_way_to_the_defaults(self):
        broken = dataclasses.make_dataclass("Broken", [("rate", "NoSuchType", 0.5)])
        assert expectation(keys_of_dataclass(broken)["rate"]) == "a number"

    def test_choices_that_we_spell_out_are_those_of_paddlenlp(self):
        from paddlenlp.trainer.trainer_utils import IntervalStrategy, OptimizerNames, SchedulerType

        for name, enum in [
            ("lr_scheduler_type", SchedulerType),
            ("optim", OptimizerNames),
            ("evaluation_strategy", IntervalStrategy),
            ("save_strategy", IntervalStrategy),
        ]:
            values = [each.value for each in enum if each is not OptimizerNames.ADAFACTOR]  # it has no such optimizer
            assert key_table()[name].annotation == Literal[tuple(values)], name


class TestTrainingArguments:
    def test_they_hold_the_values_of_the_config_and_run_on_what_is_there(self, tmp_path):
        from paddlemix._environment import gpu_is_usable

        config = load(tmp_path, output_dir=str(tmp_path / "out"), learning_rate=2e-4, report_to="none", seed=5)
        arguments = build_training_arguments(config)
        assert (arguments.learning_rate, arguments.seed, arguments.report_to) == (2e-4, 5, [])
        assert arguments.device == ("gpu" if gpu_is_usable() else "cpu")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("keys", "vision", "language"),
        [
            ({}, False, False),
            ({"recompute": True}, True, True),
            ({"recompute": True, "recompute_vit": False}, False, True),
            ({"recompute_vit": True}, True, False),
        ],
    )
    def test_recomputing_a_part_is_recomputing_to_data_parallelism(self, tmp_path, keys, vision, language):
        config = load(tmp_path, output_dir=str(tmp_path / "out"), report_to="none", **keys)
        assert (recomputes(config.training, "vit"), recomputes(config.training, "llm")) == (vision, language)
        assert build_training_arguments(config).recompute is (vision or language)

    @pytest.mark.parametrize(("keys", "workers"), [({}, 1), ({"dataloader_num_workers": 0}, 0)])
    def test_who_says_nothing_has_records_prepared_beside_training(self, tmp_path, monkeypatch, keys, workers):
        monkeypatch.setattr("paddlemix.configuration.file.data_workers", lambda environ, cores: 1)
        config = load(tmp_path, output_dir=str(tmp_path / "out"), report_to="none", **keys)
        assert build_training_arguments(config).dataloader_num_workers == workers

    def test_importing_the_module_does_not_import_paddle(self):
        code = "import sys, paddlemix.configuration.file; print('paddlenlp' in sys.modules, 'paddle' in sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True
        )
        assert done.stdout.split() == ["False", "False"]


class TestWhatIsShipped:
    @pytest.mark.parametrize("name", ["sft_argument", "sft_argument_stage2", "lora_sft_argument"])
    def test_the_configs_of_qwen_vl_hold_paddlemixs_values(self, name):
        values = json.loads((PACKAGE / "config" / "qwen_vl" / f"{name}.json").read_text("utf-8"))
        assert values == PADDLEMIX_QWEN_VL | OF_ONE_CONFIG[name]

    def test_the_page_of_the_keys_holds_the_tables_as_they_are_generated(self):
        page = (PACKAGE.parent / "docs" / "config.md").read_text(encoding="utf-8")
        assert tables() in page
        assert changed_defaults() in page
        assert "| `max_length` | a whole number, more than 0 | `2048` |" in tables()

    def test_the_page_names_every_switch_that_is_refused(self):
        from paddlemix.configuration.groups import NOT_YET_SWITCHES

        page = (PACKAGE.parent / "docs" / "config.md").read_text(encoding="utf-8")
        assert [key for key in NOT_YET_SWITCHES if f"`{key}`" not in page] == []
