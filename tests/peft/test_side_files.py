"""What stands beside a merged model's weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from paddlemix.auto import AutoProcessorMIX, AutoTokenizerMIX
from paddlemix.peft.adapter_config import AdapterConfig
from paddlemix.peft.merging.side_files import write_side_files
from paddlemix.processors.templates.files import stored_templates


@pytest.fixture
def base(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_checkpoint, tmp_path / "base")


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    (tmp_path / "adapter").mkdir()
    AdapterConfig(rank=2, alpha=4, base=str(base)).save(tmp_path / "adapter", ["q_proj"], [])
    return tmp_path / "adapter"


@pytest.fixture
def merged(base: Path, adapter: Path, tmp_path: Path):
    def write() -> Path:
        folder = tmp_path / "merged"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        write_side_files(folder, base, adapter)
        return folder

    return write


def say(file: Path, **values: object) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(values))


def test_a_bases_newer_form_does_not_count_before_an_adapters_settings_of_images(base, adapter, merged):
    say(base / "processor_config.json", image_processor={"max_pixels": 1})
    say(adapter / "preprocessor_config.json", max_pixels=2)
    assert not (merged() / "processor_config.json").exists()
    say(adapter / "processor_config.json", image_processor={"max_pixels": 3})
    folder = merged()
    assert (folder / "processor_config.json").is_file() and (folder / "preprocessor_config.json").is_file()


@pytest.mark.parametrize("where", ["chat_template.json", "chat_template.jinja", "tokenizer_config.json"])
@pytest.mark.parametrize("base_where", ["chat_template.json", "chat_template.jinja"])
def test_an_adapters_template_counts_wherever_either_stands(where, base_where, base, adapter, merged):
    for folder, name, text in ((base, base_where, "of the base"), (adapter, where, "of the adapter")):
        if name.endswith(".jinja"):
            (folder / name).write_text(text)
        else:
            say(folder / name, chat_template=text)
    named = stored_templates(merged()).named
    assert {name: one.text for name, one in named.items()} == {"default": "of the adapter"}


def test_a_bases_templates_stay_beside_an_adapters_tokenizer_that_has_none(base, adapter, merged):
    (base / "chat_template.json").unlink(missing_ok=True)
    values = json.loads((base / "tokenizer_config.json").read_text())
    say(adapter / "tokenizer_config.json", **{key: one for key, one in values.items() if key != "chat_template"})
    say(base / "tokenizer_config.json", **{**values, "chat_template": "of the base"})
    say(base / "additional_chat_templates" / "short.jinja")
    named = {name: one.text for name, one in stored_templates(merged()).named.items()}
    assert named == {"default": "of the base", "short": "{}"}


def test_the_end_that_an_adapters_tokenizer_names_is_named_by_the_merged_model(base, adapter, merged):
    processor = AutoProcessorMIX.from_pretrained(base)
    old, new = processor.tokenizer.token_id("<|endoftext|>"), processor.tokenizer.token_id("<|im_end|>")
    say(base / "generation_config.json", eos_token_id=old, top_p=0.5)
    assert json.loads((merged() / "generation_config.json").read_text()) == {"eos_token_id": old, "top_p": 0.5}
    tokenizer = AutoTokenizerMIX.from_pretrained(base)
    tokenizer.settings["eos_token"] = "<|im_end|>"
    tokenizer.save_pretrained(adapter)
    values = json.loads((merged() / "generation_config.json").read_text())
    assert values == {"eos_token_id": [new, old], "top_p": 0.5}
    say(adapter / "generation_config.json", eos_token_id=old)
    assert json.loads((merged() / "generation_config.json").read_text()) == {"eos_token_id": old}


@pytest.mark.parametrize("where", ["base", "adapter"])
def test_settings_larger_than_any_are_not_copied(where, base, adapter, merged):
    folder = {"base": base, "adapter": adapter}[where]
    with open(folder / "chat_template.jinja", "wb") as file:
        file.truncate(5 << 30)
    with pytest.raises(ValueError, match=r"chat_template\.jinja: 5368709120 bytes; expected at most"):
        merged()
