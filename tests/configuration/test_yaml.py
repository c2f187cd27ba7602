"""Configs in YAML: the same values, the same errors, and none of YAML's surprises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from paddlemix.configuration.file import ConfigError, load_config
from paddlemix.configuration.foreign.table import readable_keys
from paddlemix.configuration.reading.config_file import is_config_file
from paddlemix.configuration.reading.yaml_file import YamlFile

MINIMAL = """\
model_name_or_path: m
output_dir: out
do_train: true
dataset:
  train:
    - {name: chatml_dataset, data_files: train.json}
"""


def write(folder: Path, text: str, name: str = "run.yaml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def load(folder: Path, more: str = "", *flags: str):
    return load_config(write(folder, MINIMAL + more), flags, has_gpu=True)


def problems_of(text: str, folder: Path) -> list[str]:
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, has_gpu=True)
    return [str(problem).replace(path, "run.yaml") for problem in caught.value.problems]


def problem_with(folder: Path, more: str) -> str:
    """The one thing that is wrong with the minimal config and some more lines."""
    (problem,) = problems_of(MINIMAL + more, folder)
    return problem


class TestAccepted:
    @pytest.mark.parametrize("ending", [".yaml", ".yml", ".YAML"])
    def test_a_yaml_file_means_what_the_same_json_does(self, tmp_path, ending):
        as_yaml = load_config(write(tmp_path, MINIMAL, f"run{ending}"), has_gpu=True)
        as_json = load_config(write(tmp_path, json.dumps(yaml.safe_load(MINIMAL)), "run.json"), has_gpu=True)
        assert (as_yaml.model, as_yaml.data, as_yaml.training) == (as_json.model, as_json.data, as_json.training)
        assert str(as_yaml.place("do_train")).endswith(f"run{ending}:3")

    def test_json_in_a_yaml_file_is_read(self, tmp_path):
        text = json.dumps(yaml.safe_load(MINIMAL) | {"learning_rate": 1e-05, "seed": 7}, indent=1)
        assert load_config(write(tmp_path, text), has_gpu=True).training["seed"] == 7

    def test_flags_override_it(self, tmp_path):
        assert load(tmp_path, "seed: 1\n", "--seed", "3").training["seed"] == 3

    @pytest.mark.parametrize(
        ("line", "value"),
        [
            ("learning_rate: 1e-5", 1e-5),
            ("learning_rate: 1.0e-4", 1e-4),
            ("learning_rate: 1.E-4", 1e-4),
            ("learning_rate: .5", 0.5),
            ("learning_rate: +1", 1.0),
            ("seed: 1_000", 1000),
            ("seed: 0x10", 16),
            ("seed: 0", 0),
            ("seed: !!int 3", 3),
            ("seed: ", 42),
            ("seed: ~", 42),
            ("seed: null", 42),
            ("benchmark: yes", True),
            ("benchmark: On", True),
            ("benchmark: n", False),
            ("benchmark: TRUE", True),
            ("evaluation_strategy: no", "no"),
            ("save_strategy: 'no'", "no"),
            ("run_name: no", "no"),
            ("run_name: 007", "007"),
            ("run_name: 1e5", "1e5"),
            ("run_name: 2024-01-01", "2024-01-01"),
            ("run_name: 12:30", "12:30"),
            ('run_name: "None"', "None"),
            ("run_name: |\n  two\n  lines", "two\nlines\n"),
            ("resume_from_checkpoint: yes", True),
            ("resume_from_checkpoint: out/checkpoint-3", "out/checkpoint-3"),
            ("report_to: [none]", ["none"]),
            ("skip_data_intervals: [[1, 2]]", [[1, 2]]),
        ],
    )
    def test_a_plain_word_is_what_its_key_expects(self, tmp_path, line, value):
        found = load(tmp_path, line + "\n").training[line.partition(":")[0]]
        assert (found, type(found)) == (value, type(value))

    def test_words_inside_of_sets_are_read_by_their_keys_too(self, tmp_path):
        text = (
            MINIMAL
            + "      # a comment\n    - {name: no, data_files: [1, on], splits: [':90%', 10:20], join_turns: on,\n"
        )
        text += "       prompt: yes, columns: {answer: off}}\n"
        item = load_config(write(tmp_path, text), has_gpu=True).data.dataset.train[1]
        assert (item.name, item.files, item.splits) == ("no", ["1", "on"], [":90%", "10:20"])
        assert (item.join_turns, item.prompt, item.columns) == (True, "yes", {"answer": "off"})

    def test_keys_of_other_systems_are_read_as_ours(self, tmp_path):
        text = "eval_strategy: no\ngradient_checkpointing: yes\ntorch_dtype: bfloat16\npacking: on\n"
        config = load(tmp_path, text)
        assert (config.training["evaluation_strategy"], config.training["recompute"]) == ("no", True)
        assert config.model.dtype == "bfloat16" and config.data.mixtoken is True

    def test_anchors_and_merge_keys_work_and_what_stands_there_itself_counts(self, tmp_path):
        text = (
            MINIMAL.replace("- {", "- &set {").rstrip() + "\n    - <<: *set\n      max_samples: 3\n      name: auto\n"
        )
        first, second = load_config(write(tmp_path, text), has_gpu=True).data.dataset.train
        assert (second.name, second.files, second.max_samples) == ("auto", first.files, 3)
        assert first.max_samples is None

    def test_the_ending_tells_a_config_from_a_model(self):
        assert all(map(is_config_file, ("a.json", "a/b.yaml", "b.YML")))
        assert not any(map(is_config_file, ("Qwen/Qwen2-VL", "output/model", "a.json/b")))


class TestRefused:
    def test_one_error_lists_everything_by_line(self, tmp_path):
        text = """\
model_name_or_path: m
frezee_vit: true
learning_rate: "1e-5"
seed: yes   # a whole number
dataset:
  train:
    - nam: a
      data_files: [a.json, [3]]
    - 4
  evl: []
save_steps: 10
evaluation_strategy: step
save_steps: 20
max_length: 010
do_predict: on
"""
        assert problems_of(text, tmp_path) == [
            "run.yaml:2: unknown key `frezee_vit` (value true). Did you mean `freeze_vit`?",
            'run.yaml:3: `learning_rate` is "1e-5"; expected a number, more than 0. Drop the quotes: 1e-5',
            'run.yaml:4: `seed` is "yes"; expected a whole number, at least 0, at most 2147483647.',
            "run.yaml:7: `dataset.train[0].name` is missing; expected a string, not empty.",
            'run.yaml:7: unknown key `dataset.train[0].nam` (value "a"). Did you mean `name`?',
            "run.yaml:8: `dataset.train[0].data_files[1]` is [3]; expected a string.",
            "run.yaml:9: `dataset.train[1]` is 4; expected an object with name, data_files, image_root, prompt, "
            "max_samples, splits, seed, weight, repeat, columns, markup, placeholders, join_turns, train_on, "
            "ignore_keys, unpack_limit.",
            "run.yaml:10: unknown key `dataset.evl` (value []). Did you mean `eval`?",
            'run.yaml:12: `evaluation_strategy` is "step"; expected one of "no", "steps", "epoch".',
            "run.yaml:13: `save_steps` is given 2 times; keep one of them.",
            "run.yaml:14: `max_length` is 010, which YAML 1.1 reads as 8 and YAML 1.2 as 10. Write the number without "
            "a 0 in front, or put a text in quotes.",
            "run.yaml:15: `do_predict` is true, but that is not available yet. Set it to false.",
            "run.yaml: `output_dir` is missing; expected a string, not empty. Add it, or give --output_dir.",
        ]

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("seed: 08", "`seed` is 08, which YAML 1.1 takes for text."),
            ("learning_rate: .inf", "`learning_rate` is .inf; expected a finite number."),
            ("learning_rate: 1e999", "`learning_rate` is 1e999, which is too large for a number;"),
            ("run_name: None", "`run_name` is None, which YAML takes for text. Write null for the default, or put it"),
            ("seed: 1:30", '`seed` is "1:30"; expected a whole number, at least 0, at most 2147483647.'),
            (
                "seed: [1",
                "not valid YAML at column 7: expected ',' or ']', but got '<stream end>'. A bracket that begins",
            ),
            ('run_name: "x', "not valid YAML at column 11: found unexpected end of stream. A quote that begins here"),
            ("benchmark: 1", "`benchmark` is 1; expected true or false."),
            ("freeze_include: [*visual*]", "not valid YAML at column 25: expected alphabetic or numeric character"),
            (
                "freeze_include: [*visual]",
                "not valid YAML at column 18: found undefined alias 'visual'. A text that be",
            ),
            ("run_name: a: b", "not valid YAML at column 12: mapping values are not allowed here. A text that holds"),
            (
                "run_name: @a",
                "not valid YAML at column 11: found character '@' that cannot start any token. Put quotes",
            ),
            ("\tseed: 1", "not valid YAML"),
            (
                "a: !!python/object:os.system x",
                "has a value of the type `python/object:os.system`. Expected plain keys",
            ),
            ("a: !Mine x", "has a value of the type `!Mine`."),
            ("? [a]\n: 1", "has a key that is a list or a mapping."),
            ("<<: 3", "takes over by `<<` what is no mapping."),
            ("a: &a [*a]", "is nested more than 20 levels deep"),
            ("a: &a\n  <<: *a", "takes over itself by `<<`"),
            ("a: " + "[" * 3000, "is nested more than 20 levels deep"),
            ("a: " + "[" * 30 + "]" * 30, "is nested more than 20 levels deep"),
        ],
    )
    def test_what_a_config_cannot_mean_is_refused_with_its_line(self, tmp_path, line, expected):
        text = problem_with(tmp_path, line + "\n")
        place, _, said = text.partition(": ")
        assert said.startswith(expected) and (place == "run.yaml" or int(place.removeprefix("run.yaml:")) >= 7)

    def test_two_documents_are_refused(self, tmp_path):
        said = problem_with(tmp_path, "---\nseed: 1\n")
        assert said.startswith("run.yaml:7: not valid YAML") and "Keep one document" in said

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", "run.yaml:1: is empty; expected lines such as `seed: 1`."),
            ("# nothing\n", "run.yaml:1: is empty;"),
            ("- a\n", 'run.yaml:1: holds ["a"]; expected an object: lines such as `seed: 1`.'),
            ("seed 1\n", 'run.yaml:1: holds "seed 1"; expected an object'),
            ("a: 1\nb: \x07\n", "run.yaml:2: not valid YAML: it holds a control character (U+0007). Take it out."),
        ],
    )
    def test_a_file_without_keys_is_named_with_the_place(self, tmp_path, text, expected):
        (problem,) = problems_of(text, tmp_path)
        assert problem.startswith(expected)

    def test_anchors_that_multiply_are_refused(self, tmp_path):
        lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
        lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 9)]
        assert any("holds more than 20000 values" in problem for problem in problems_of("\n".join(lines), tmp_path))


TEXTS = st.one_of(
    st.text("abcß{}[]:#*&!|>'\"%@`- ,?01e.\\~", max_size=8),
    st.sampled_from(["yes", "no", "on", "null", "010", "1e5", ".inf", "1:30", "~", "", "=", "<<"]),
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
OF_ANY_TYPE = st.one_of(st.booleans(), st.integers(), FLOATS, st.text("abc-# :", max_size=5))


@settings(max_examples=60, deadline=None)
@given(
    document=st.fixed_dictionaries(
        {"seed": st.integers(), "run_name": TEXTS},
        optional={
            "benchmark": st.booleans(),
            "learning_rate": FLOATS,
            "data": st.lists(TEXTS).map(lambda texts: {"train": [{"prompt": text} for text in texts]}),
            "freeze_include": st.lists(TEXTS),
            "of_nobody": st.lists(st.dictionaries(TEXTS, OF_ANY_TYPE)),
        },
    )
)
def test_what_pyyaml_has_written_is_read_as_it_was(tmp_path_factory, document: dict[str, Any]):
    document["dataset"] = document.pop("data", {})
    file = YamlFile(
        write(tmp_path_factory.mktemp("run"), yaml.safe_dump(document, allow_unicode=True)), readable_keys()
    )
    assert (file.values, file.problems) == (document, [])
