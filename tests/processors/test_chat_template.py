import json
import os
import pickle

import pytest

from paddlemix.contract import Piece
from paddlemix.conversation import Image
from paddlemix.models.qwen2_vl.chat_template import TEMPLATE
from paddlemix.models.qwen2_vl.chat_template import Qwen2VLChatTemplate as ChatTemplate
from paddlemix.processors.templates.environment import TemplateProblem
from paddlemix.processors.turns.written import WrittenTurn

OTHER = "{% for message in messages %}{{ message.role }}{% endfor %}"


def written(*turns):
    """Turns of images, and of texts as pieces."""
    return [
        WrittenTurn(role, [Piece(part) if isinstance(part, str) else part for part in parts], role == "assistant")
        for role, *parts in turns
    ]


def said(text, *, control=False, weight=1.0):
    """A piece that an assistant says."""
    return Piece(text, control, weight, answer=True)


def test_every_chat_is_the_string_that_the_published_template_makes(processor_reference):
    rows = json.loads((processor_reference / "chats.json").read_text("utf-8"))
    assert len(rows) == 36
    assert any("Picture 3: <|vision_start|>" in row["text"] and row["add_vision_id"] for row in rows)
    template = ChatTemplate()
    for row in rows:
        expected = row.pop("text")
        assert template.render(**row) == expected


def test_the_default_system_turn_images_and_prompt_are_as_the_model_was_trained():
    pieces = ChatTemplate().pieces(written(("user", Image("a.jpg"), "Q")), add_generation_prompt=True)
    assert "".join(piece.text for piece in pieces) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Q<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_template_that_reaches_for_pythons_insides_is_stopped():
    with pytest.raises(TemplateProblem, match="access to attribute '__class__' of 'list' object is unsafe"):
        ChatTemplate("{{ messages.__class__.__mro__[1].__subclasses__() }}").render([])
    with pytest.raises(TemplateProblem, match="'append' of"):
        ChatTemplate("{{ messages.append(1) }}").render([])


def test_a_text_is_never_read_as_a_template_or_as_a_marker():
    hostile = "{{ messages }}{% raw %}\ue0000\ue001\ue0009\ue001"
    pieces = list(ChatTemplate().pieces(written(("user", hostile, "next"))))
    assert [piece for piece in pieces if piece.text in (hostile, "next")] == [Piece(hostile), Piece("next")]


def test_a_templates_own_text_is_split_at_its_control_tokens():
    assert list(ChatTemplate().split("<|im_start|>user\n<|im_end|><|unknown|>")) == [
        Piece("<|im_start|>", control=True),
        Piece("user\n"),
        Piece("<|im_end|>", control=True),
        Piece("<|unknown|>"),
    ]
    assert list(ChatTemplate().split("")) == []


@pytest.mark.parametrize(
    "parts",
    [
        ["A."],
        ["A.", Image("a.jpg")],
        [Image("a.jpg"), "A."],
        ["A.", Image("a.jpg"), "B."],
        ["A.", "B.", Image("a.jpg"), Image("b.jpg")],
        [Image("a.jpg")],
        [""],
        [],
    ],
)
def test_an_assistants_words_and_the_end_of_its_turn_are_trained_and_nothing_else(parts):
    turns = [("user", "Q"), ("assistant", *parts), ("user", "Q"), ("assistant", "C.")]
    pieces = list(ChatTemplate().pieces(written(*turns)))
    words = [said(part) for part in parts if isinstance(part, str) and part]
    end = said("<|im_end|>", control=True)
    assert [piece for piece in pieces if piece.weight and piece.text] == [*words, end, said("C."), end]
    last = [index for index, piece in enumerate(pieces) if piece == end]
    assert [pieces[index + 1].text for index in last] == ["\n"] * 2


def test_a_saved_template_comes_back_and_stands_alone_in_its_file(tmp_path):
    ChatTemplate(OTHER).save_pretrained(tmp_path)
    assert os.listdir(tmp_path) == ["chat_template.json"]
    assert ChatTemplate.from_pretrained(tmp_path).source == OTHER


def test_a_template_that_was_rendered_can_go_to_another_process():
    template = ChatTemplate(OTHER)
    expected = template.render([{"role": "user"}])
    assert pickle.loads(pickle.dumps(template)).render([{"role": "user"}]) == expected == "user"


@pytest.mark.parametrize(
    "value", [OTHER, [{"name": "tool_use", "template": "no"}, {"name": "default", "template": OTHER}]]
)
@pytest.mark.parametrize("name", ["chat_template.json", "tokenizer_config.json"])
def test_a_checkpoint_keeps_one_template_or_several_with_names(tmp_path, name, value):
    (tmp_path / name).write_text(json.dumps({"chat_template": value}))
    assert ChatTemplate.from_pretrained(tmp_path).source == OTHER


def test_chat_template_json_takes_precedence_over_tokenizer_config_json(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "no"}))
    ChatTemplate(OTHER).save_pretrained(tmp_path)
    assert ChatTemplate.from_pretrained(tmp_path).source == OTHER


def test_a_bare_template_file_takes_precedence_over_all_others(tmp_path):
    ChatTemplate("no").save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(OTHER)
    assert ChatTemplate.from_pretrained(tmp_path).source == OTHER


@pytest.mark.parametrize("settings", [None, {}, {"chat_template": None}, {"chat_template": []}])
def test_a_checkpoint_without_a_template_has_the_familys(tmp_path, settings):
    if settings is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert ChatTemplate.from_pretrained(tmp_path).source == TEMPLATE
