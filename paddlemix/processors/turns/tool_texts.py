"""Tools, calls and their results in words, for chat templates that know nothing of tools.

Qwen2.5 was trained on this form, and the language models of Qwen2-VL and Qwen2.5-VL are its kin:

    <|im_start|>system
    You are a helpful assistant.

    # Tools
    ...
    <tools>
    {"type": "function", "function": {"name": "zoom", ...}}
    </tools>
    ...<|im_end|>
    <|im_start|>assistant
    Let me look.
    <tool_call>
    {"name": "zoom", "arguments": {"factor": 2}}
    </tool_call><|im_end|>
    <|im_start|>user
    <tool_response>
    a red box
    </tool_response><|im_end|>

All of it is text. Where a vocabulary has `<tool_call>` as a token of its own, as Qwen2.5-VL's, the text becomes it.

Source: the chat template of Qwen2.5-Instruct, 2024.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby

from paddlemix.contract import Piece, Written
from paddlemix.conversation import ToolCall
from paddlemix.processors.turns.written import WrittenTurn

_LISTED = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


def spelled_out(turns: Sequence[WrittenTurn], tools: Sequence[str], default_system: str) -> list[WrittenTurn]:
    """Write tools, calls and results as words of system, assistant's and user's turns.

    Args:
        turns: of a conversation, their pieces weighed.
        tools: each an object as JSON text.
        default_system: what the system turn says where the conversation has none.

    Returns:
        The turns, without calls and none of a tool's: results that follow one another are one turn of a user's.
    """
    said = list(_without_results(turns))
    if not tools:
        return said
    if not said or said[0].role != "system":
        said.insert(0, WrittenTurn("system", [Piece(default_system)] if default_system else [], weight=0.0))
    system, *others = said
    listed = _LISTED.format(tools="\n".join(tools))
    return [_followed_by(system, f"\n\n{listed}" if _says_something(system.written) else listed), *others]


def calls_text(calls: Sequence[ToolCall]) -> str:
    """Write calls as a model says them, each with its tags, on lines of their own."""
    return "\n".join(
        f'<tool_call>\n{{"name": {json.dumps(call.name, ensure_ascii=False)}, "arguments": {call.arguments}}}\n'
        "</tool_call>"
        for call in calls
    )


def _without_results(turns: Sequence[WrittenTurn]) -> Iterator[WrittenTurn]:
    for is_result, group in groupby(turns, key=lambda turn: turn.role == "tool"):
        same = list(group)
        if is_result:
            responses = [one for number, turn in enumerate(same) for one in _response(turn, is_first=not number)]
            yield WrittenTurn("user", responses, same[-1].weight)
        else:
            yield from (_with_calls(turn) if turn.calls else turn for turn in same)


def _response(turn: WrittenTurn, *, is_first: bool) -> list[Written]:
    opening = "<tool_response>\n" if is_first else "\n<tool_response>\n"
    return [turn.spoken(Piece(opening)), *turn.written, turn.spoken(Piece("\n</tool_response>"))]


def _with_calls(turn: WrittenTurn) -> WrittenTurn:
    text = calls_text(turn.calls)
    return _followed_by(turn._replace(calls=()), f"\n{text}" if turn.written else text)


def _followed_by(turn: WrittenTurn, text: str) -> WrittenTurn:
    return turn._replace(written=[*turn.written, turn.spoken(Piece(text))])


def _says_something(written: Sequence[Written]) -> bool:
    return any(not isinstance(one, Piece) or one.text for one in written)
