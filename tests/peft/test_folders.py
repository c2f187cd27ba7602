from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from paddlemix.auto import AutoProcessorMIX, AutoTokenizerMIX
from paddlemix.contract import NewToken
from paddlemix.peft.adapter_config import AdapterConfig
from paddlemix.peft.folders import find_folders, lasting_name
from paddlemix.processors.sources import ProcessorSources


@pytest.fixture
def adapter(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    (tmp_path / "adapter").mkdir()
    AdapterConfig(rank=2, alpha=4, base=str(tiny_checkpoint)).save(tmp_path / "adapter", ["q_proj"], [])
    return tmp_path / "adapter"


def test_an_adapter_alone_stands_on_the_base_that_it_names(adapter, tiny_checkpoint):
    found = find_folders(adapter)
    assert (found.model, found.adapter) == (tiny_checkpoint, adapter)
    sources = ProcessorSources.of(found.model, found.adapter)
    assert {sources.model, sources.media, sources.tokenizer, sources.template} == {tiny_checkpoint}
    assert find_folders(tiny_checkpoint).adapter is None


def test_a_base_that_is_given_goes_before_the_one_that_the_adapter_names(adapter, tiny_checkpoint, tmp_path):
    other = shutil.copytree(tiny_checkpoint, tmp_path / "other")
    assert find_folders(other, adapter).model == other


def test_the_processor_that_an_adapter_was_trained_with_goes_before_its_bases(adapter, tiny_checkpoint):
    AutoProcessorMIX.from_pretrained(tiny_checkpoint, max_pixels=112 * 112).save_pretrained(adapter)
    assert AutoProcessorMIX.from_pretrained(adapter).image_processor.max_pixels == 112 * 112
    assert AutoProcessorMIX.from_pretrained(tiny_checkpoint).image_processor.max_pixels == 56 * 56


def test_a_tokenizer_alone_beside_an_adapter_counts_and_the_rest_is_the_bases(adapter, tiny_checkpoint, tmp_path):
    base = shutil.copytree(tiny_checkpoint, tmp_path / "base")
    AutoProcessorMIX.from_pretrained(tiny_checkpoint, max_pixels=112 * 112).save_pretrained(base)
    tokenizer = AutoTokenizerMIX.from_pretrained(base)
    tokenizer.add_tokens([NewToken("<loc_1>")])
    tokenizer.save_pretrained(adapter)
    processor = AutoProcessorMIX.from_pretrained(base, lora_path=adapter)
    assert processor.tokenizer.encode("<loc_1>") == [processor.tokenizer.size - 1]
    assert processor.image_processor.max_pixels == 112 * 112
    assert processor.chat_template.source == AutoProcessorMIX.from_pretrained(base).chat_template.source


def test_what_config_json_says_of_videos_holds_beside_an_adapter(tiny_qwen2_5_vl, adapter, tmp_path):
    base = shutil.copytree(tiny_qwen2_5_vl, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config["vision_config"]["tokens_per_second"] = 7
    (base / "config.json").write_text(json.dumps(config))
    AutoProcessorMIX.from_pretrained(base).save_pretrained(adapter)
    assert AutoProcessorMIX.from_pretrained(base, lora_path=adapter).tokens_per_second == 7


def test_a_base_that_is_gone_is_told_with_the_way_out(adapter):
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "/no/such/model"}))
    with pytest.raises(FileNotFoundError, match=r"`base_model_name_or_path` /no/such/model is not there. Give"):
        find_folders(adapter)
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    with pytest.raises(ValueError, match="names no `base_model_name_or_path`"):
        find_folders(adapter)


def test_model_and_adapter_in_one_anothers_place_are_refused(adapter, tiny_checkpoint):
    with pytest.raises(ValueError, match="`lora_path` .* holds no adapter_config.json"):
        find_folders(tiny_checkpoint, tiny_checkpoint)
    with pytest.raises(ValueError, match="`model_name_or_path` .* is an adapter itself"):
        find_folders(adapter, adapter)


def test_what_an_adapter_says_of_its_base_holds_in_other_folders_and_programs(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert lasting_name("model") == str(tmp_path / "model")
    assert lasting_name("qwen-vl/qwen-vl-chat-7b") == "Qwen/Qwen-VL-Chat"
    assert lasting_name("Qwen/Qwen2-VL-2B") == "Qwen/Qwen2-VL-2B"
