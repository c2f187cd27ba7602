"""Which tools ask the card, before they load anything."""

from __future__ import annotations

import json
import sys

import pytest

from paddlemix.configuration.problems import ConfigError
from paddlemix.examples.qwen_vl import finetune
from paddlemix.tools import evaluate, supervised_finetune

CONFIG = {
    "model_name_or_path": "nowhere",
    "dataset": {"train": [{"name": "messages", "data_files": "train.json"}]},
    "output_dir": "out",
    "do_train": True,
    "bf16": True,
}


@pytest.fixture
def old_card(monkeypatch):
    """Make the tools see a card of compute capability 7.5."""
    for module in ("tools.supervised_finetune", "examples.qwen_vl.finetune", "tools.precision"):
        monkeypatch.setattr(f"paddlemix.{module}.gpu_is_usable", lambda: True)
        monkeypatch.setattr(f"paddlemix.{module}.is_older_than_ampere", lambda: True)


def test_a_run_in_bfloat16_on_an_old_card_ends_with_the_keys_to_write(old_card, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    with pytest.raises(ConfigError, match='Set "bf16": false and "fp16": true'):
        supervised_finetune.main([str(path)])


def test_qwen_vls_script_whose_default_is_bfloat16_says_the_same(old_card):
    with pytest.raises(ConfigError, match="--bf16 false --fp16 true"):
        finetune.main(["--model_name_or_path", "m", "--data_path", "train.json", "--output_dir", "out"])


def test_evaluation_refuses_a_precision_that_the_machine_has_not(old_card, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "nowhere", "--dtype", "bfloat16"])
    with pytest.raises(ValueError, match="--dtype bfloat16 needs a card of compute capability 8.0"):
        evaluate.main()
