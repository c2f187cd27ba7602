"""Adapters written again for other versions of transformers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from paddlemix.tools import rename_adapter

ROOT = Path(__file__).parents[1] / "fixtures" / "adapters"


@pytest.fixture
def rename(tmp_path, monkeypatch):
    """A function that runs the tool."""

    def run(folder: Path, versions: str, target: str = "renamed") -> Path:
        base = ROOT / "bases" / json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
        words = ["--lora_path", folder, "--model_name_or_path", base, "--output_path", tmp_path / target]
        monkeypatch.setattr(sys, "argv", ["rename_adapter.py", *map(str, words), "--transformers", versions])
        rename_adapter.main()
        return tmp_path / target

    return run


@pytest.mark.parametrize("kind", ["layers", "whole", "tied_both"])
def test_a_later_adapter_gets_the_names_of_the_oldest_version_and_back(rename, kind):
    newest, oldest = (load_file(ROOT / one / kind / "adapter_model.safetensors") for one in ("5.24", "4.45"))
    older = rename(ROOT / "5.24" / kind, "before_4.52")
    assert load_file(older / "adapter_model.safetensors").keys() == oldest.keys()
    again = load_file(rename(older, "since_4.52", "again") / "adapter_model.safetensors")
    assert again.keys() == newest.keys() and all(np.array_equal(again[name], newest[name]) for name in newest)


def test_keys_that_older_versions_do_not_know_are_left_out_where_they_ask_for_nothing(rename):
    folder = rename(ROOT / "5.24" / "layers", "before_4.52")
    config = json.loads((folder / "adapter_config.json").read_text())
    known = json.loads((ROOT / "4.45" / "layers" / "adapter_config.json").read_text())
    assert config.keys() <= known.keys() and config["r"] == 2 and config["peft_type"] == "LORA"
    assert all("language_model" not in name for name in config["target_modules"])


def test_a_folder_that_is_no_adapter_is_refused(tmp_path, monkeypatch):
    base = ROOT / "bases" / "qwen2_vl_tied"
    words = ["--lora_path", base, "--output_path", tmp_path / "out", "--transformers", "since_4.52"]
    monkeypatch.setattr(sys, "argv", ["rename_adapter.py", *map(str, words)])
    with pytest.raises(ValueError, match=r"holds no adapter_config.json; give the folder of an adapter"):
        rename_adapter.main()
    assert not (tmp_path / "out").exists()
