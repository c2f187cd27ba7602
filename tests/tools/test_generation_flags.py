"""Every setting of answers as a flag of the tools that answer."""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from paddlemix.generation import GenerationConfig, dialogue
from paddlemix.tools import chat, evaluate, predict, preview_data
from paddlemix.tools.generation_flags import add_generation_flags, errors_name_flags, generation_settings

GIVEN = {
    "max_new_tokens": ("7", 7),
    "min_new_tokens": ("2", 2),
    "temperature": ("0.5", 0.5),
    "top_k": ("3", 3),
    "top_p": (".9", 0.9),
    "repetition_penalty": ("1.1", 1.1),
    "seed": ("5", 5),
    "eos_token_ids": ("4 5", (4, 5)),
    "stop_token_ids": ("6", (6,)),
    "stop_strings": ("a b", ("a", "b")),
    "stop_words_ids": ("1,2 3", ((1, 2), (3,))),
    "num_beams": ("1", 1),
    "length_penalty": ("-1.5", -1.5),
    "early_stopping": ("never", "never"),
}


def settings(*words: str, **more: Any) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_generation_flags(parser, otherwise="x", **more)
    return generation_settings(parser.parse_args(list(words)))


def test_every_setting_is_a_flag_that_is_read():
    assert set(GIVEN) == {field.name for field in fields(GenerationConfig)}
    words = [word for name, (text, _) in GIVEN.items() for word in (f"--{name}", *text.split())]
    config = GenerationConfig().changed(**settings(*words))
    assert {name: getattr(config, name) for name in GIVEN} == {name: value for name, (_, value) in GIVEN.items()}


def test_a_flag_that_is_not_given_leaves_a_setting_and_an_empty_list_empties_it():
    assert set(settings().values()) == {None}
    published = GenerationConfig(stop_strings=["a"], top_k=4)
    assert published.changed(**settings()) == published
    assert published.changed(**settings("--stop_strings")).stop_strings == ()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--top_p 2", "argument --top_p: '2'; expected a number above 0 and at most 1"),
        (
            "--max_new_tokens many",
            "argument --max_new_tokens: 'many'; expected a whole number, at least 1 and at most 2147483647",
        ),
        ("--temperature nan", "argument --temperature: 'nan'; expected a number, at least 0"),
        ("--stop_token_ids 3 -4", "argument --stop_token_ids: '-4'; expected a list of token ids"),
        ("--stop_words_ids 1,x", "argument --stop_words_ids: '1,x'; expected a list of lists of token ids"),
        ("--early_stopping soon", "argument --early_stopping: 'soon'; expected true, false or \"never\""),
        ("--do_sample maybe", "argument --do_sample: 'maybe' is neither True nor False"),
    ],
)
def test_a_wrong_value_is_refused_by_its_flag(capsys, words, said):
    with pytest.raises(SystemExit):
        settings(*words.split())
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--min_new_tokens 9 --max_new_tokens 3", "--min_new_tokens is 9; expected at most --max_new_tokens, 3."),
        ("--num_beams 2 --temperature 1", "--num_beams is 2 and --temperature 1.0; beams are not drawn"),
        ("--do_sample true --temperature 0", "--do_sample is True, but --temperature is 0, which draws nothing"),
    ],
)
def test_flags_that_do_not_go_together_are_named(words, said):
    with pytest.raises(ValueError, match=said), errors_name_flags():
        GenerationConfig().changed(**settings(*words.split()))


@pytest.fixture
def sampling(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint whose file samples, and names an end and a stop string."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, folder)
    said = {"do_sample": True, "temperature": 0.5, "top_k": 3, "eos_token_id": [3, 4], "stop_strings": "END"}
    (folder / "generation_config.json").write_text(json.dumps(said))
    return folder


def asked(monkeypatch: pytest.MonkeyPatch, main: Any, *words: object) -> GenerationConfig:
    seen: list[GenerationConfig] = []
    monkeypatch.setattr(dialogue, "stream_answer", lambda *given: seen.append(given[-1]) or iter(["."]))
    monkeypatch.setattr("sys.stdin", io.StringIO("hi\n"))
    monkeypatch.setattr(sys, "argv", ["tool.py", *map(str, words)])
    main()
    return seen[0]


@pytest.mark.parametrize("tool", ["predict", "chat"])
def test_run_predict_and_chat_answer_as_the_file_says_unless_flags_say_otherwise(monkeypatch, sampling, tool):
    def main() -> None:
        predict.main(predict.Script("x")) if tool == "predict" else chat.main()

    config = asked(monkeypatch, main, "--model_name_or_path", sampling)
    assert (config.temperature, config.top_k, config.eos_token_ids) == (0.5, 3, (3, 4))
    words = ["--do_sample", "false", "--num_beams", 2, "--stop_strings", "x", "y"]
    config = asked(monkeypatch, main, "--model_name_or_path", sampling, *words)
    assert (config.temperature, config.num_beams, config.stop_strings) == (0, 2, ("x", "y"))


def test_evaluate_is_greedy_and_ends_where_the_file_says_unless_flags_say_otherwise(
    monkeypatch: pytest.MonkeyPatch, sampling: Path, shapes: Path, tmp_path: Path
) -> None:
    seen: list[GenerationConfig] = []
    monkeypatch.setattr(evaluate, "evaluate_model", lambda *given, **more: seen.append(given[3]) or ({}, []))
    sets = json.dumps([{"name": "vqa_dataset", "data_files": str(shapes / "eval_vqa.json")}])
    words = [sampling, "--dataset", sets, "--output", tmp_path / "metrics.json"]
    for more in ([], ["--temperature", 0.7], ["--do_sample", "true", "--top_p", 0.5, "--max_new_tokens", 5]):
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, [*words, *more])])
        evaluate.main()
    ends = [(one.eos_token_ids, one.stop_strings) for one in seen]
    assert ends == [((3, 4), ("END",))] * 3
    drawn = [(one.temperature, one.top_k, one.top_p, one.max_new_tokens) for one in seen]
    assert drawn == [(0, 0, 1, 128), (0.7, 0, 1, 128), (1, 50, 0.5, 5)]


def test_the_previews_flags_do_not_take_keys_of_the_config():
    args, overrides = preview_data.parse_arguments(
        [
            "config.json",
            "--seed",
            "5",
            "--lora",
            "true",
            "--temperature",
            "0.5",
            "--early_stopping_patience",
            "3",
            "--lora_path",
            "out",
        ]
    )
    assert overrides == ["--seed", "5", "--lora", "true", "--early_stopping_patience", "3", "--lora_path", "out"]
    assert args.temperature == 0.5 and args.early_stopping is None


def test_help_groups_the_flags_with_an_example(capsys):
    parser = argparse.ArgumentParser()
    add_generation_flags(parser, otherwise="As the file says", defaults={"max_new_tokens": 128})
    said = " ".join(parser.format_help().split())
    assert "how answers are written: As the file says; such as: --do_sample true" in said
    assert "(default: 128)" in said
    for name in GIVEN:
        assert f"--{name}" in said
    assert "texts that end an answer, which is cut off before them" in said
