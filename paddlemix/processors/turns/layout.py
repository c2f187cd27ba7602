"""What a chat template writes round what is said: found by rendering it with markers in place of all that is said.

A layout holds for all turns of one shape.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, zip_longest
from typing import Any, NamedTuple

from paddlemix.contract import Piece
from paddlemix.conversation import Image, Role
from paddlemix.processors.turns.written import WrittenTurn

# Characters of a private use area: no template writes them, and texts are put in only after the split. By its number
# "t" stands for a text, "n" for a called function's name, "j" for JSON; by the turn's place "e" stands for the end of
# what a turn says, and "s" for the same of a turn that says nothing before its calls.
_MARKER = "\ue000{}{}\ue001"
# Stands round texts: where a template trims what it is given, this is gone, and the texts are trimmed too.
_EDGE = "\u2003"
_MARKED = re.compile(f"(?P<left>{_EDGE}?)\ue000(?P<kind>[tnje])(?P<number>\\d+)\ue001(?P<right>{_EDGE}?)")
# A template that has a line end between words and calls has none where there are no words.
_SILENT = re.compile("\ue000s(\\d+)\ue001\\s*")
# As JSON in ASCII spells what markers are made of.
_ESCAPED = re.compile(r"\\u(e00[01]|2003)")
_QUOTED_JSON = re.compile('"(\ue000j\\d+\ue001)"')


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


@dataclass(frozen=True)
class Stretch:
    """Where a stretch of pieces is put in.

    Attributes:
        number: of the stretch.
        is_left_trimmed: whether the template takes white space in front of it away.
        is_right_trimmed: likewise behind it.
    """

    number: int
    is_left_trimmed: bool = False
    is_right_trimmed: bool = False

    def put_in(self, pieces: Sequence[Piece]) -> Sequence[Piece]:
        """Give the stretch's pieces as the template shows them."""
        if not self.is_left_trimmed and not self.is_right_trimmed:
            return pieces
        shown = list(pieces)
        if self.is_left_trimmed and not shown[0].control:
            shown[0] = shown[0]._replace(text=shown[0].text.lstrip())
        if self.is_right_trimmed and not shown[-1].control:
            shown[-1] = shown[-1]._replace(text=shown[-1].text.rstrip())
        return shown


Laid = Piece | OfTurn | Stretch
"""What a layout consists of: a template's own pieces, and the stretches that are put in."""


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
        for written in turn.written:
            if isinstance(written, Piece):
                if kinds[-1:] != "t":
                    kinds += "t"
                    stretches.append([])
                stretches[-1].append(written)
            else:
                kinds += "i" if isinstance(written, Image) else "v"
        stretches += [[turn.spoken(Piece(text))] for call in turn.calls for text in (call.name, call.arguments)]
        shape.append(TurnShape(turn.role, kinds, len(turn.calls), turn.is_answer or turn.weight > 0))
    return tuple(shape), stretches


def marked(shape: Shape, tools: int, *, as_strings: bool = False) -> tuple[list[dict[str, Any]], list[str]]:
    """Make what a template is given, with markers in place of texts, names and JSON.

    Args:
        shape: of the turns.
        tools: how many there are.
        as_strings: whether the content of turns that show nothing is a string, not a list of parts.

    Returns:
        Messages and tools.
    """
    number = count()
    listed = [_MARKER.format("j", next(number)) for _ in range(tools)]
    messages = [_message(turn, place, number) for place, turn in enumerate(shape)]
    return [_with_string(message) if as_strings else message for message in messages], listed


def as_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write a value for a template; a marker of JSON stands for what is JSON already.

    Args:
        value: whatever is left of `marked`, or of a caller's own messages.
        ensure_ascii: whether other characters are written as their numbers.
        indent: spaces a level; None writes one line.
        separators: between items, and behind keys.
        sort_keys: whether keys are in the order of their letters.

    Returns:
        JSON, once the markers are replaced.
    """
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return _QUOTED_JSON.sub(r"\1", _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text))


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
    for own, marker in _cut(_SILENT.sub(_MARKER.format("e", r"\1"), rendered)):
        for piece in split(own):
            is_end = piece.control and not calls_due
            is_said = speaker is not None and (is_end or shape[speaker].calls)
            yield OfTurn(piece, speaker) if is_said and speaker is not None else piece
            speaker = None if is_end else speaker
        if marker is None:
            return
        if calls_due and marker.kind not in "nj":
            raise ValueError("calls do not stand behind the words of their turn.")
        if marker.kind == "e":
            speaker, calls_due = marker.number, 2 * shape[marker.number].calls
        else:
            speaker, calls_due = (speaker, calls_due - 1) if calls_due else (None, 0)
            yield Stretch(marker.number, marker.is_left_trimmed, marker.is_right_trimmed)


class _Marker(NamedTuple):
    """A marker that was found, of a kind that the comment on `_MARKER` tells."""

    kind: str
    number: int
    is_left_trimmed: bool
    is_right_trimmed: bool


def _cut(text: str) -> Iterator[tuple[str, _Marker | None]]:
    """Cut a rendering into the template's own texts, each with the marker behind it; behind the last there is none."""
    found = [*_MARKED.finditer(text)]
    place = 0
    for one, following in zip_longest(found, found[1:]):
        kind, is_left_trimmed, is_right_trimmed = one["kind"], False, False
        if kind == "t":
            # Where words and the marker of their end were trimmed together, the end's edge is the one that is gone.
            ends_turn = following is not None and following.start() == one.end() and following["kind"] == "e"
            is_left_trimmed = not one["left"]
            is_right_trimmed = not one["right"] or (ends_turn and not following["right"])
        yield text[place : one.start()], _Marker(kind, int(one["number"]), is_left_trimmed, is_right_trimmed)
        place = one.end()
    yield text[place:], None


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
    marker = _MARKER.format(kind, number)
    left, right = _EDGE if kind == "t" else "", _EDGE if kind in "te" else ""
    return {"type": "text", "text": f"{left}{marker}{right}"}


def _with_string(message: dict[str, Any]) -> dict[str, Any]:
    """Join the parts of a message that shows nothing."""
    parts = message["content"]
    if any(part["type"] != "text" for part in parts):
        return message
    return {**message, "content": "".join(part["text"] for part in parts)}


def _call(number: Iterator[int]) -> dict[str, Any]:
    name, arguments = _MARKER.format("n", next(number)), _MARKER.format("j", next(number))
    return {"type": "function", "function": {"name": name, "arguments": arguments}}
