from __future__ import annotations

import json
import logging
import os
import pickle
import shutil

import pytest

from paddlemix import processors
from paddlemix.contract import Piece
from paddlemix.models.qwen2_vl.chat_template import TEMPLATE
from paddlemix.models.qwen2_vl.chat_template import Qwen2VLChatTemplate as ChatTemplate
from paddlemix.processors.templates.environment import TemplateProblem
from paddlemix.processors.templates.files import special_tokens, stored_templates
from paddlemix.processors.turns.written import WrittenTurn


def write(folder, name, values):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(values if isinstance(values, str) else json.dumps(values))


@pytest.fixture
def several(tmp_path):
    """A checkpoint with templates of three names."""
    write(tmp_path, "chat_template.jinja", "main")
    write(tmp_path, "additional_chat_templates/tool_use.jinja", "tools{{ tools | length }}")
    write(tmp_path, "additional_chat_templates/terse.jinja", "terse")
    return tmp_path


def test_a_template_is_chosen_by_name_and_the_default_one_otherwise(several):
    template = ChatTemplate.from_pretrained(several)
    assert template.render([]) == "main"
    assert template.chosen("terse").render([]) == "terse"
    with pytest.raises(ValueError, match="`chat_template` is 'rude'; the checkpoint has default, terse, tool_use"):
        template.chosen("rude")


def test_conversations_with_tools_have_the_template_of_that_name_unless_one_was_chosen(several):
    template = ChatTemplate.from_pretrained(several)
    assert template.render([], tools=["a", "b"]) == "tools2"
    assert template.chosen("terse").render([], tools=["a"]) == "terse"
    turns = [WrittenTurn("user", [Piece("Q")], 0.0)]
    with pytest.raises(TemplateProblem, match="does not write tools"):
        list(template.pieces(turns, ["{}"]))


def test_templates_with_names_are_saved_and_read_again(several, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    write(folder, "chat_template.json", {"chat_template": "stale"})
    write(folder, "additional_chat_templates/old.jinja", "stale")
    ChatTemplate.from_pretrained(several).save_pretrained(folder)
    assert sorted(os.listdir(folder)) == ["additional_chat_templates", "chat_template.jinja"]
    again = ChatTemplate.from_pretrained(folder)
    assert again.source == "main" and sorted(again.stored.named) == ["default", "terse", "tool_use"]


def test_a_single_template_that_is_saved_counts_whatever_was_in_the_folder(several):
    ChatTemplate("new").save_pretrained(several)
    assert ChatTemplate.from_pretrained(several).source == "new"
    assert sorted(os.listdir(several)) == ["additional_chat_templates", "chat_template.json"]
    assert os.listdir(several / "additional_chat_templates") == []


def test_a_list_without_a_default_leaves_the_familys_template_and_says_so(tmp_path, caplog):
    write(tmp_path, "tokenizer_config.json", {"chat_template": [{"name": "rag", "template": "r"}]})
    template = ChatTemplate.from_pretrained(tmp_path)
    assert template.source == TEMPLATE and template.chosen("rag").source == "r"
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        f"{tmp_path}: of the chat templates rag none is called `default`; the family's own is used where "
        "`chat_template` chooses none."
    ]


def test_special_tokens_of_the_tokenizer_are_variables(tmp_path):
    source = "[{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ image_token }}]"
    settings = {"bos_token": None, "eos_token": {"content": "<e>"}, "pad_token": "<p>", "chat_template": source}
    write(tmp_path, "tokenizer_config.json", {**settings, "extra_special_tokens": {"image_token": "<i>"}})
    template = ChatTemplate.from_pretrained(tmp_path)
    assert template.render([]) == pickle.loads(pickle.dumps(template)).render([]) == "[<e><p><i>]"
    assert special_tokens({"additional_special_tokens": ["<a>"]}) == {"additional_special_tokens": ["<a>"]}


def test_a_template_that_is_no_jinja_is_refused_when_it_is_read(tmp_path):
    write(tmp_path, "chat_template.jinja", "\n{% if %}")
    with pytest.raises(TemplateProblem, match=r"chat_template\.jinja:2: the chat template is no jinja2"):
        ChatTemplate.from_pretrained(tmp_path)


def test_a_template_of_another_kind_of_value_is_refused(tmp_path):
    write(tmp_path, "tokenizer_config.json", {"chat_template": [1]})
    with pytest.raises(
        ValueError, match="`chat_template` is a list; expected a text, or a list of names and templates"
    ):
        ChatTemplate.from_pretrained(tmp_path)


def test_a_processor_is_told_which_template_to_use(several, processor_reference):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(processor_reference / name, several / name)
    processor = processors.Qwen2VLProcessor.from_pretrained(several, chat_template="terse")
    assert processor.chat_template.render([]) == "terse"
    with pytest.raises(ValueError, match="`chat_template` is 'rude'"):
        processors.Qwen2VLProcessor.from_pretrained(several, chat_template="rude")


def test_a_family_with_one_template_refuses_a_choice(tiny_qwen_vl):
    with pytest.raises(ValueError, match="QwenVLProcessor has one template for all checkpoints"):
        processors.QwenVLProcessor.from_pretrained(tiny_qwen_vl, chat_template="terse")


def test_a_template_file_may_begin_with_a_mark_and_is_utf_8(tmp_path):
    (tmp_path / "chat_template.jinja").write_bytes(b"\xef\xbb\xbf" + TEMPLATE.encode())
    assert ChatTemplate.from_pretrained(tmp_path).source == TEMPLATE
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe{{ x }}")
    with pytest.raises(ValueError, match=r"chat_template.jinja: is not UTF-8 \(.* at byte 0\). Save it as UTF-8."):
        ChatTemplate.from_pretrained(tmp_path)


def test_an_empty_template_is_refused_and_an_empty_text_in_json_is_none(tmp_path):
    write(tmp_path, "tokenizer_config.json", {"chat_template": ""})
    assert not stored_templates(tmp_path).named
    write(tmp_path, "chat_template.jinja", "\n")
    with pytest.raises(ValueError, match=r"chat_template.jinja: a chat template in it is empty"):
        stored_templates(tmp_path)


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside", "", ".hidden", "a/b", "a\0b", "x" * 101, "a\nb"])
@pytest.mark.parametrize("as_list", [False, True])
def test_a_templates_name_that_no_file_here_can_have_is_refused(tmp_path, name, as_list):
    named = {"default": "x", name: "y"}
    value = [{"name": one, "template": text} for one, text in named.items()] if as_list else named
    write(tmp_path, "chat_template.json", {"chat_template": value})
    with pytest.raises(ValueError, match=r"chat_template\.json: `chat_template` calls a template .*; expected a name"):
        ChatTemplate.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", [["a"], {}, 5, None])
def test_a_templates_name_that_is_no_text_is_refused(tmp_path, name):
    write(tmp_path, "chat_template.json", {"chat_template": [{"name": name, "template": "x"}]})
    with pytest.raises(ValueError, match=r"chat_template\.json: `chat_template` is a list; expected a text, or a list"):
        ChatTemplate.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["chat_template.jinja", "additional_chat_templates/tool_use.jinja"])
@pytest.mark.parametrize(
    ("content", "said"),
    [(b"x" * (2**22 + 1), "expected at most"), ("caf\xe9".encode("latin-1"), "not UTF-8"), (b"\xff\xfe", "not UTF-8")],
)
def test_a_templates_file_is_read_within_bounds(tmp_path, name, content, said):
    write(tmp_path, name, "")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"^{tmp_path / name}: .*{said}"):
        ChatTemplate.from_pretrained(tmp_path)


@pytest.mark.parametrize("word", ["messages", "tools", "self", "add_generation_prompt"])
def test_a_token_called_as_what_templates_are_given_is_refused(tmp_path, word):
    write(tmp_path, "tokenizer_config.json", {"extra_special_tokens": {word: "<x>"}})
    with pytest.raises(ValueError, match=rf"tokenizer_config\.json: `extra_special_tokens` calls a token `{word}`"):
        ChatTemplate.from_pretrained(tmp_path)
