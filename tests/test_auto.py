from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from paddlemix.auto import AutoConfigMIX, AutoModelMIX, AutoProcessorMIX, AutoTokenizerMIX
from paddlemix.models.qwen2_vl import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from paddlemix.models.qwen2_vl.tokenizer import Qwen2Tokenizer
from paddlemix.processors import Qwen2VLProcessor

CHOOSERS = [AutoConfigMIX, AutoModelMIX, AutoProcessorMIX, AutoTokenizerMIX]
TINY = Path(__file__).parent / "fixtures" / "qwen2_vl_tiny"


@pytest.mark.parametrize("variant", ["tied", "untied"])
def test_config_and_model_are_chosen_by_what_config_json_says(variant, tmp_path):
    folder = shutil.copytree(TINY / variant, tmp_path / "llama-7b")
    config, model = AutoConfigMIX.from_pretrained(folder), AutoModelMIX.from_pretrained(str(folder), dtype="float16")
    assert isinstance(config, Qwen2VLConfig) and isinstance(model, Qwen2VLForConditionalGeneration)
    assert config.tie_word_embeddings == (variant == "tied") == model.config.tie_word_embeddings
    assert {str(parameter.dtype) for parameter in model.parameters()} == {"paddle.float16"}


@pytest.mark.parametrize("chooser", CHOOSERS)
def test_an_unknown_model_is_refused_with_the_known_ones_whatever_the_folders_name(chooser, tmp_path):
    folder = tmp_path / "Qwen2-VL-2B-Instruct"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}))
    with pytest.raises(ValueError, match=r"LlamaForCausalLM.*Known: Qwen2VLForConditionalGeneration \(qwen2_vl\)"):
        chooser.from_pretrained(folder)


@pytest.mark.parametrize("chooser", CHOOSERS)
def test_a_folder_that_is_not_there_is_named_by_the_key_that_names_it(chooser, tmp_path):
    with pytest.raises(FileNotFoundError, match="`model_name_or_path` .*nothing is no local folder"):
        chooser.from_pretrained(tmp_path / "nothing")


@pytest.mark.parametrize("chooser", CHOOSERS)
def test_a_folder_without_a_model_is_named(chooser, tmp_path):
    with pytest.raises(FileNotFoundError, match="no config.json"):
        chooser.from_pretrained(tmp_path)


def test_a_tilde_stands_for_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(TINY / "tied", tmp_path / "model")
    assert AutoConfigMIX.from_pretrained("~/model").vocab_size == 120


def test_processor_and_tokenizer_are_chosen_by_what_config_json_says(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "llama-7b")
    processor, tokenizer = AutoProcessorMIX.from_pretrained(folder), AutoTokenizerMIX.from_pretrained(str(folder))
    assert isinstance(processor, Qwen2VLProcessor) and isinstance(tokenizer, Qwen2Tokenizer)
    assert tokenizer.encode("a red star") == processor.tokenizer.encode("a red star") != []


def test_a_name_of_the_hub_stands_for_its_folder_in_the_cache(tiny_checkpoint, monkeypatch):
    asked = []
    monkeypatch.setattr("paddlemix.hub._from_hub", lambda *words: asked.append(words) or tiny_checkpoint)
    loaded = [chooser.from_pretrained("Qwen/Tiny") for chooser in CHOOSERS]
    direct = [type(one).from_pretrained("Qwen/Tiny") for one in loaded[1:]]
    assert [type(one) for one in direct] == [Qwen2VLForConditionalGeneration, Qwen2VLProcessor, Qwen2Tokenizer]
    needs_weights = [False, True, False, False, True, False, False]
    assert asked == [("Qwen/Tiny", weights) for weights in needs_weights]


def test_a_processor_can_be_named_without_loading_it():
    code = "import sys, paddlemix.processors; assert 'paddle' not in sys.modules and 'PIL' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(ImportError, match="NoSuchProcessor"):
        from paddlemix.processors import NoSuchProcessor  # noqa: F401
