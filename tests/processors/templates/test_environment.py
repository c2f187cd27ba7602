"""Templates as they are published, beside what transformers makes of them: `make_template_reference.py`."""

from __future__ import annotations

import json

import pytest

from paddlemix.contract import Piece
from paddlemix.conversation import Image
from paddlemix.models.qwen2_vl.chat_template import Qwen2VLChatTemplate
from paddlemix.processors.templates.environment import TemplateProblem
from paddlemix.processors.templates.files import StoredTemplates, TemplateText
from paddlemix.processors.turns.written import WrittenTurn
from tests.references import FIXTURES

FOLDER = FIXTURES / "chat_templates"
REFERENCE = json.loads((FOLDER / "renderings.json").read_text("utf-8"))
ROWS = REFERENCE["rows"]


def template_of(name):
    text = (FOLDER / name).read_text("utf-8")
    named = {"default": TemplateText(text, str(FOLDER / name))}
    return Qwen2VLChatTemplate(text, StoredTemplates(named, REFERENCE["tokens"]))


def turn(role, content):
    parts = [{"text": content}] if isinstance(content, str) else content
    written = [Piece(part["text"]) if "text" in part else Image(part["image"]) for part in parts]
    return WrittenTurn(role, written, weight=float(role == "assistant"))


@pytest.mark.parametrize("name", ["generation.jinja", "json.jinja", "macros.jinja", "strings.jinja"])
def test_what_is_rendered_is_what_transformers_renders_and_what_stops_there_stops_here(name):
    template, seen = template_of(name), set()
    for row in ROWS:
        if row["template"] != name:
            continue
        seen.add("stops" in row)
        if "stops" in row:
            with pytest.raises(TemplateProblem) as caught:
                template.render(row["messages"], **row["settings"])
            assert str(caught.value).startswith(f"{FOLDER / name}:") and row["stops"].rstrip(".") in str(caught.value)
        else:
            assert template.render(row["messages"], **row["settings"]) == row["text"]
    assert False in seen


@pytest.mark.parametrize("name", ["generation.jinja", "macros.jinja", "strings.jinja"])
def test_the_pieces_of_a_conversation_add_up_to_what_transformers_renders_trims_included(name):
    template, compared = template_of(name), 0
    for row in ROWS:
        roles = {message["role"] for message in row["messages"]}
        takes_lists = name != "strings.jinja" or all(isinstance(one["content"], str) for one in row["messages"])
        is_compared = row["template"] == name and "text" in row and "critic" not in roles and takes_lists
        if not is_compared or not {*row["settings"]} <= {"add_generation_prompt"}:
            continue
        turns = [turn(message["role"], message["content"]) for message in row["messages"]]
        pieces = list(template.pieces(turns, **row["settings"]))
        assert "".join(piece.text for piece in pieces) == row["text"]
        answers = [message["content"].strip() for message in row["messages"] if message["role"] == "assistant"]
        said = "".join(piece.text.strip() for piece in pieces if piece.weight)
        assert said == "".join(f"{answer}<|im_end|>" for answer in answers)
        compared += 1
    assert compared >= 6


def test_a_refusal_of_the_template_is_told_whatever_form_of_content_it_takes():
    template = Qwen2VLChatTemplate("{{ 'a' + messages[0].content }}{{ raise_exception('Only one turn, please.') }}")
    with pytest.raises(TemplateProblem, match=r"template: the chat template stops: Only one turn, please\.$"):
        list(template.pieces([turn("user", "Q")]))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("\n{% for message in messages %}", "line 2 of the template: the chat template is no jinja2: "),
        ("\n\n{{ nothing.at.all }}", "line 3 of the template: the chat template stops: 'nothing' is undefined"),
        ("{{ 1 // 0 }}", "line 1 of the template: the chat template stops: "),
        (
            "{% macro a() %}\n{{ a() }}{% endmacro %}{{ a() }}",
            "the chat template stops: maximum recursion depth exceeded",
        ),
        ("{{ messages[0].role * 10**15 }}", "line 1 of the template: the chat template stops: it does more work"),
        (
            "{{ (10**10000) | string }}",
            "the chat template stops: it computes a number of more than 4096 bits",
        ),
        ("{{ messages[9].content }}", "line 1 of the template: the chat template stops: "),
        ("{{ messages[0].content[0].text | upper | replace('T', '') }}", "of 1 texts, tools and calls' names"),
    ],
)
def test_what_is_wrong_with_a_template_is_one_sentence_with_its_line(source, said):
    with pytest.raises(TemplateProblem) as caught:
        list(Qwen2VLChatTemplate(source).pieces([turn("user", "Q")]))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_break_inside_a_generation_block_and_variables_set_outside_work():
    source = (
        "{% set x = 'a' %}{% for m in messages %}{% generation %}{{ x }}{% if loop.first %}{% break %}{% endif %}"
        "{% endgeneration %}{% endfor %}"
    )
    assert Qwen2VLChatTemplate(source).render([{"role": "user"}] * 3) == "a"
