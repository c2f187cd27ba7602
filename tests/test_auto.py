from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from paddlemix.auto import AutoConfigMIX, AutoModelMIX, AutoProcessorMIX
from paddlemix.models.qwen2_vl import Qwen2VLConfig, Qwen2VLForConditionalGeneration

TINY = Path(__file__).parent / "fixtures" / "qwen2_vl_tiny"


@pytest.mark.parametrize("variant", ["tied", "untied"])
def test_config_and_model_are_chosen_by_what_config_json_says(variant, tmp_path):
    folder = shutil.copytree(TINY / variant, tmp_path / "llama-7b")
    config, model = AutoConfigMIX.from_pretrained(folder), AutoModelMIX.from_pretrained(str(folder), dtype="float16")
    assert isinstance(config, Qwen2VLConfig) and isinstance(model, Qwen2VLForConditionalGeneration)
    assert config.tie_word_embeddings == (variant == "tied") == model.config.tie_word_embeddings
    assert {str(parameter.dtype) for parameter in model.parameters()} == {"paddle.float16"}


@pytest.mark.parametrize("chooser", [AutoConfigMIX, AutoModelMIX, AutoProcessorMIX])
def test_an_unknown_model_is_refused_with_the_known_ones_whatever_the_folders_name(chooser, tmp_path):
    folder = tmp_path / "Qwen2-VL-2B-Instruct"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}))
    with pytest.raises(ValueError, match=r"LlamaForCausalLM.*Known: Qwen2VLForConditionalGeneration \(qwen2_vl\)"):
        chooser.from_pretrained(folder)


@pytest.mark.parametrize("chooser", [AutoConfigMIX, AutoModelMIX, AutoProcessorMIX])
def test_a_folder_that_is_not_there_is_named_by_the_key_that_names_it(chooser, tmp_path):
    with pytest.raises(FileNotFoundError, match="`model_name_or_path` .*nothing is no local folder"):
        chooser.from_pretrained(tmp_path / "nothing")


@pytest.mark.parametrize("chooser", [AutoConfigMIX, AutoModelMIX, AutoProcessorMIX])
def test_a_folder_without_a_model_is_named(chooser, tmp_path):
    with pytest.raises(FileNotFoundError, match="no config.json"):
        chooser.from_pretrained(tmp_path)


def test_a_tilde_stands_for_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(TINY / "tied", tmp_path / "model")
    assert AutoConfigMIX.from_pretrained("~/model").vocab_size == 120
