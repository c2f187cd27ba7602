"""Intervals between checkpoints, evaluations and logs, as numbers of steps and as shares of all steps."""

from __future__ import annotations

import json
import math

import pytest

from paddlemix.configuration.file import ConfigError, build_training_arguments, load_config
from paddlemix.configuration.intervals import in_steps, times

RECORDS = [{"name": "chatml_dataset", "data_files": "train.json"}]
MINIMAL = {
    "model_name_or_path": "m",
    "output_dir": "out",
    "do_train": True,
    "dataset": {"train": RECORDS, "eval": RECORDS},
}
BEST = {"load_best_model_at_end": True, "evaluation_strategy": "steps"}


def load(folder, **keys):
    (folder / "run.json").write_text(json.dumps(MINIMAL | keys))
    return load_config(str(folder / "run.json"), has_gpu=False)


def steps_of(folder, total, **keys):
    return in_steps(load(folder, **keys).training, total)


@pytest.mark.parametrize(("total", "share"), [(100, 0.1), (7, 0.25), (3, 0.001), (1234, 0.999)])
def test_a_share_is_of_all_steps_and_rounded_up_as_transformers_does(tmp_path, total, share):
    found = steps_of(tmp_path, total, save_steps=share, eval_steps=share, logging_steps=share)
    assert set(found.values()) == {math.ceil(total * share)}


def test_numbers_of_steps_stay_what_they_are_beside_shares(tmp_path):
    found = steps_of(tmp_path, 50, save_steps=0.5, logging_steps=7)
    assert found == {"save_steps": 25, "eval_steps": 7, "logging_steps": 7}


@pytest.mark.parametrize("key", ["save_steps", "eval_steps", "logging_steps"])
@pytest.mark.parametrize("value", [1.5, 0, 0.0, -0.1, 1.0, "0.1", True])
def test_what_is_neither_a_number_of_steps_nor_a_share_is_refused(tmp_path, key, value):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, **{key: value})
    expected = (
        f"`{key}` is {json.dumps(value)}; expected a whole number, at least 1, or a number, more than 0, less than 1."
    )
    assert expected in str(caught.value) and ("Drop the quotes: 0.1" in str(caught.value)) == (value == "0.1")


def test_paddlenlp_gets_whole_numbers_until_all_steps_are_known(tmp_path):
    config = load(tmp_path, save_steps=0.2, eval_steps=0.1, report_to="none", **BEST)
    args = build_training_arguments(config)
    assert {type(getattr(args, key)) for key in ("save_steps", "eval_steps", "logging_steps")} == {int}


@pytest.mark.parametrize(
    ("save", "evaluate", "expected"), [(200, 100, 2), (0.3, 0.1, 3), (0.5, 0.5, 1), (0.25, 0.1, None), (0.5, 100, None)]
)
def test_checkpoints_stand_at_evaluations_where_the_best_is_kept(tmp_path, save, evaluate, expected):
    assert times(save, evaluate) == expected
    if expected:
        found = steps_of(tmp_path, 11, save_steps=save, eval_steps=evaluate, **BEST)
        assert found["save_steps"] == expected * found["eval_steps"]
    else:
        with pytest.raises(ConfigError, match="`load_best_model_at_end` needs an evaluation with every checkpoint"):
            load(tmp_path, save_steps=save, eval_steps=evaluate, **BEST)
