"""What a chat template writes round what is said: found by rendering it with markers in place of all that is said.

A layout holds for all turns of one shape.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, groupby
from typing import Any, NamedTuple

from paddlemix.contract import Piece, Written
from paddlemix.conversation import Image, Role, Video
from paddlemix.processors.turns.written import WrittenTurn

# Characters of a private use area: no template writes them, and texts are put in only after the split. By its number
# "t" stands for a text, "n" for a called function's name, "j" for JSON; by the turn's place "e" stands for the end of
# what a turn says, and "s" for the same of a turn that says nothing before its calls.
_MARKER = "\ue000{}{}\ue001"
_MARKED = re.compile("\ue000([tnje]\\d+)\ue001")
# A template that has a line end between words and calls has none where there are no words.
_SILENT = re.compile("\ue000s(\\d+)\ue001\\s*")
_QUOTED_JSON = re.compile('"(\ue000j\\d+\ue001)"')
_KINDS: dict[type, str] = {Image: "i", Video: "v"}


class TurnShape(NamedTuple):
    """What a template has to know of a turn.

    Attributes:
        role: who speaks.
        kinds: "i" for each image, "v" for each video and "t" for the pieces between them.
        calls: how many functions are called behind them.
        is_closed: whether the token that ends the turn has the turn's weight.
    """

    role: Role
    kinds: str
    calls: int
    is_closed: bool


Shape = tuple[TurnShape, ...]


@dataclass(frozen=True)
class OfTurn:
    """A piece of the template's own that a turn's speaker says: what ends the turn, and what stands round its calls.

    Attributes:
        piece: without the turn's weight.
        turn: the turn's place.
    """

    piece: Piece
    turn: int


Laid = Piece | OfTurn | int
"""What a layout consists of: a template's own pieces, and the numbers of the stretches that are put in."""


def taken_apart(turns: Sequence[WrittenTurn], tools: Sequence[str]) -> tuple[Shape, list[list[Piece]]]:
    """Tell apart what a template has to know of turns, and the stretches of pieces that are put in afterwards.

    Args:
        turns: of a conversation.
        tools: each an object as JSON text.

    Returns:
        The shape, and the stretches by number: the tools, then of each turn its texts, and of each of its calls the
        name and the arguments.
    """
    shape: list[TurnShape] = []
    stretches = [[Piece(tool)] for tool in tools]
    for turn in turns:
        kinds = ""
        for kind, group in groupby(turn.written, key=_kind):
            same: list[Any] = list(group)
            kinds += kind if kind == "t" else kind * len(same)
            if kind == "t":
                stretches.append(same)
        stretches += [[turn.spoken(Piece(text))] for call in turn.calls for text in (call.name, call.arguments)]
        shape.append(TurnShape(turn.role, kinds, len(turn.calls), turn.is_answer or turn.weight > 0))
    return tuple(shape), stretches


def marked(shape: Shape, tools: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Make what a template is given, with markers in place of texts, names and JSON.

    Args:
        shape: of the turns.
        tools: how many there are.

    Returns:
        Messages and tools.
    """
    number = count()
    listed = [_MARKER.format("j", next(number)) for _ in range(tools)]
    return [_message(turn, place, number) for place, turn in enumerate(shape)], listed


def as_json(value: Any, indent: int | None = None) -> str:
    """Write a value for a template; a marker of JSON stands for what is JSON already.

    Args:
        value: whatever is left of `marked`, or of a caller's own messages.
        indent: spaces a level; None writes one line.

    Returns:
        JSON, once the markers are replaced.
    """
    return _QUOTED_JSON.sub(r"\1", json.dumps(value, ensure_ascii=False, indent=indent))


def laid_out(rendered: str, shape: Shape, split: Callable[[str], Iterable[Piece]]) -> Iterator[Laid]:
    """Take a rendering apart; the control token that follows a turn's words and calls is said with them.

    Args:
        rendered: of `marked` messages.
        shape: what they were made of.
        split: cuts a template's text at its control tokens.

    Yields:
        The layout in its order.

    Raises:
        ValueError: calls do not follow the words of their turn.
    """
    speaker: int | None = None  # the turn whose end is due
    calls_due = 0  # and how many markers of its calls come before that
    # re.split alternates the template's own text with what a marker holds.
    for place, stretch in enumerate(_MARKED.split(_SILENT.sub(_MARKER.format("e", r"\1"), rendered))):
        if place % 2:
            kind, number = stretch[0], int(stretch[1:])
            if calls_due and kind not in "nj":
                raise ValueError("calls do not stand behind the words of their turn")
            if kind == "e":
                speaker, calls_due = number, 2 * shape[number].calls
            else:
                speaker, calls_due = (speaker, calls_due - 1) if calls_due else (None, 0)
                yield number
            continue
        for piece in split(stretch):
            is_end = piece.control and not calls_due
            is_said = speaker is not None and (is_end or shape[speaker].calls)
            yield OfTurn(piece, speaker) if is_said and speaker is not None else piece
            speaker = None if is_end else speaker


def _kind(written: Written) -> str:
    return _KINDS.get(type(written), "t")


def _message(turn: TurnShape, place: int, number: Iterator[int]) -> dict[str, Any]:
    content = [_part(kind, number) for kind in turn.kinds]
    if turn.is_closed:
        # Stands behind what a turn says: the control token that follows it ends the turn.
        content.append(_text_part("s" if turn.calls and not turn.kinds else "e", place))
    message: dict[str, Any] = {"role": turn.role, "content": content}
    if turn.calls:
        message["tool_calls"] = [_call(number) for _ in range(turn.calls)]
    return message


def _part(kind: str, number: Iterator[int]) -> dict[str, str]:
    if kind == "t":
        return _text_part("t", next(number))
    return {"type": "image" if kind == "i" else "video"}


def _text_part(kind: str, number: int) -> dict[str, str]:
    return {"type": "text", "text": _MARKER.format(kind, number)}


def _call(number: Iterator[int]) -> dict[str, Any]:
    name, arguments = _MARKER.format("n", next(number)), _MARKER.format("j", next(number))
    return {"type": "function", "function": {"name": name, "arguments": arguments}}
