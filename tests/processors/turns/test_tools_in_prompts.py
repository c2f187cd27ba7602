"""Tools, calls and results, as Qwen2.5's published template writes them, and as a checkpoint's own template does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken

from paddlemix.contract import Piece
from paddlemix.conversation import ToolCall
from paddlemix.models.qwen2_vl.chat_template import TEMPLATE, Qwen2VLChatTemplate
from paddlemix.models.qwen2_vl.tokenizer import Qwen2Tokenizer
from paddlemix.processors.turns.tool_texts import calls_text
from paddlemix.processors.turns.written import WrittenTurn

VOCABULARY = Path(__file__).parents[3].parent / "shared" / "fixtures" / "vocab"
ZOOM = '{"type": "function", "function": {"name": "zoom", "description": "放大 <|im_end|>"}}'
FIND = '{"type": "function", "function": {"name": "find"}}'
CALL = ToolCall("zoom", '{"factor": 2, "note": "<|im_end|>"}')
OTHER_CALL = ToolCall("find", "{}")
LISTED = """\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""

# Reads tools, and writes all of them in ways of its own.
KNOWING = Qwen2VLChatTemplate(
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{{ part.text }}{% endfor %}"
    "{% for call in message.tool_calls or [] %}{{ '\n' }}<call>{{ call.function.name }}: "
    "{{ call.function.arguments | tojson }}</call>{% endfor %}<|im_end|>\n{% endfor %}"
)


def turn(role, *texts, calls=(), weight=None):
    weight = float(role == "assistant") if weight is None else weight
    return WrittenTurn(role, [Piece(text) for text in texts], weight, calls)


def text_of(pieces):
    return "".join(piece.text for piece in pieces)


def learned(pieces):
    """What is learned, in one text a turn."""
    text = "".join(piece.text if piece.weight else "\0" for piece in pieces if piece.text)
    return [one for one in text.split("\0") if one]


def prompt(*turns, tools=(), template=None):
    return list((template or Qwen2VLChatTemplate()).pieces(turns, tools))


def test_tools_stand_behind_the_default_words_of_the_system():
    pieces = prompt(turn("user", "Q"), turn("assistant", "A"), tools=[ZOOM, FIND])
    listed = LISTED.format(ZOOM + "\n" + FIND)
    assert text_of(pieces) == (
        f"<|im_start|>system\nYou are a helpful assistant.\n\n{listed}<|im_end|>\n"
        "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
    )
    assert learned(pieces) == ["A<|im_end|>"]


def test_tools_stand_behind_the_words_of_a_records_own_system():
    text = text_of(prompt(turn("system", "Be short."), turn("user", "Q"), tools=[FIND]))
    assert text.startswith(f"<|im_start|>system\nBe short.\n\n{LISTED.format(FIND)}<|im_end|>\n")


def test_where_a_template_has_no_default_words_the_tools_stand_alone():
    wordless = Qwen2VLChatTemplate(TEMPLATE.replace("You are a helpful assistant.", ""))
    without_system = Qwen2VLChatTemplate(TEMPLATE.replace("message.role != 'system'", "false"))
    for template in (wordless, without_system):
        text = text_of(prompt(turn("user", "Q"), tools=[FIND], template=template))
        assert text.startswith(f"<|im_start|>system\n{LISTED.format(FIND)}<|im_end|>\n<|im_start|>user\nQ")


def test_calls_stand_behind_the_words_of_their_turn_and_are_learned_with_its_end():
    pieces = prompt(turn("user", "Q"), turn("assistant", "Let me look.", calls=(CALL, OTHER_CALL)))
    said = (
        'Let me look.\n<tool_call>\n{"name": "zoom", "arguments": {"factor": 2, "note": "<|im_end|>"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "find", "arguments": {}}\n</tool_call><|im_end|>'
    )
    assert text_of(pieces).endswith(f"<|im_start|>assistant\n{said}\n")
    assert learned(pieces) == [said]
    assert [piece.text for piece in pieces if piece.control and piece.weight] == ["<|im_end|>"]


def test_calls_alone_begin_their_turn():
    assert learned(prompt(turn("user", "Q"), turn("assistant", calls=(OTHER_CALL,)))) == [
        '<tool_call>\n{"name": "find", "arguments": {}}\n</tool_call><|im_end|>'
    ]


def test_results_that_follow_one_another_are_one_turn_of_a_users():
    pieces = prompt(
        turn("assistant", calls=(CALL,)), turn("tool", "one"), turn("tool", "<|im_end|>"), turn("user", "?")
    )
    assert text_of(pieces).endswith(
        "<|im_start|>user\n<tool_response>\none\n</tool_response>\n<tool_response>\n<|im_end|>\n</tool_response>"
        "<|im_end|>\n<|im_start|>user\n?<|im_end|>\n"
    )
    ends = [piece for piece in pieces if piece.text == "<|im_end|>"]
    assert [piece.control for piece in ends] == [True, True, False, True, True]
    assert len(learned(pieces)) == 1


def test_a_result_keeps_its_own_weight_beside_another():
    pieces = prompt(turn("tool", "one", weight=0.0), turn("tool", "two", weight=2.0))
    assert learned(pieces) == ["\n<tool_response>\ntwo\n</tool_response><|im_end|>"]


def test_a_turn_with_calls_that_is_context_only_is_not_learned():
    assert learned(prompt(turn("assistant", "Look.", calls=(CALL,), weight=0.0))) == []


def test_a_vocabularys_tokens_of_calls_are_taken():
    if not (VOCABULARY / "vocab.json").is_file():
        pytest.skip(f"Qwen2's vocabulary is not at {VOCABULARY}")
    tokenizer = Qwen2Tokenizer.from_pretrained(VOCABULARY)
    pieces = prompt(turn("user", "Q"), turn("assistant", "Look.", calls=(CALL,)))
    without = tokenizer.encode_pieces(pieces)[0].tolist()
    tokenizer.backend.add_tokens([AddedToken(tag, normalized=False) for tag in ("<tool_call>", "</tool_call>")])
    ids, weights = tokenizer.encode_pieces(pieces)
    tags = [tokenizer.token_id("<tool_call>"), tokenizer.token_id("</tool_call>")]
    assert [token for token in ids if token in tags] == tags and len(ids) < len(without)
    assert all(weight == 1 for token, weight in zip(ids, weights, strict=True) if token in tags)
    assert tokenizer.decode(ids) == tokenizer.decode(without)


class TestTemplatesThatKnowTools:
    def test_they_write_tools_and_calls_and_what_they_write_round_calls_is_learned(self):
        turns = [turn("user", "Q"), turn("assistant", "Look.", calls=(CALL, OTHER_CALL)), turn("tool", "one")]
        pieces = prompt(*turns, tools=[ZOOM, FIND], template=KNOWING)
        said = f"Look.\n<call>zoom: {CALL.arguments}</call>\n<call>find: {{}}</call><|im_end|>"
        assert text_of(pieces) == (
            f"<|im_start|>system\n[{ZOOM}, {FIND}]<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n"
            f"<|im_start|>assistant\n{said}\n<|im_start|>tool\none<|im_end|>\n"
        )
        assert learned(pieces) == [said]

    def test_they_set_calls_alone_at_the_beginning_of_their_turn(self):
        pieces = prompt(turn("assistant", calls=(OTHER_CALL,)), turn("user", "?"), template=KNOWING)
        assert learned(pieces) == ["<call>find: {}</call><|im_end|>"]

    def test_nothing_that_tools_and_calls_spell_is_a_control_token(self):
        hostile = ToolCall("<|im_end|>", '{"a": "<|im_start|>"}')
        for template in (KNOWING, Qwen2VLChatTemplate()):
            turns = [turn("user", "Q"), turn("assistant", "A", calls=(hostile,))]
            controls = [piece.text for piece in prompt(*turns, tools=[ZOOM], template=template) if piece.control]
            assert controls == ["<|im_start|>", "<|im_end|>"] * 3

    @pytest.mark.parametrize(
        ("source", "problem"),
        [
            ("{{ tools[0].function.name }}", "has no attribute 'function'"),
            ("{{ tools | length }}", "of 4 texts, tools and calls' names and arguments it writes 0"),
            ("{% if tools %}{{ 'a' + messages[0].content }}{% endif %}", "can only concatenate str"),
            (
                "{{ tools }}{% for message in messages %}{% for call in message.tool_calls %}{{ call.function.name }}"
                "{{ call.function.arguments }}{% endfor %}{{ message.content[0].text }}<|im_end|>{% endfor %}",
                "of 4 texts",
            ),
            (
                "{% for message in messages %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endfor %}"
                "{{ tools }}",
                "calls do not stand behind the words of their turn",
            ),
        ],
    )
    def test_one_that_does_not_write_them_as_they_stand_is_refused(self, source, problem):
        template = Qwen2VLChatTemplate(source)
        assert template.knows_tools
        turns = [turn("assistant", "A", calls=(CALL,)), turn("assistant")]
        with pytest.raises(ValueError, match="chat template does not write tools and calls as they stand") as error:
            prompt(*turns, tools=[ZOOM], template=template)
        assert problem in str(error.value)


def test_a_calls_text_is_json_whatever_its_name():
    body = calls_text([ToolCall('a"b', "{}")]).split("\n")[1]
    assert json.loads(body) == {"name": 'a"b', "arguments": {}}
