"""Turns as other systems write them: who speaks, what is said and shown, how much of it is learned, what is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from paddlemix.conversation import Role, ToolCall
from paddlemix.datasets.reading.context import Reading
from paddlemix.datasets.reading.fields import require
from paddlemix.datasets.reading.keys import MEDIA_KEYS, check_keys, is_given, keys, only_key
from paddlemix.datasets.reading.media import images_of, videos_of
from paddlemix.datasets.reading.parts import pieces_of
from paddlemix.datasets.reading.slots.placeholders import IMAGE, VIDEO, Piece, Slot, cut_at
from paddlemix.datasets.reading.tools import calls_from, parsed
from paddlemix.datasets.records.json_files import Record, describe

# The keys of a list of turns, of a turn's speaker and of its text.
TURN_KEYS = ("messages", "conversations", "conversation")
_SPEAKER_KEYS, _TEXT_KEYS = ("role", "from"), ("content", "value")
SYSTEM_KEYS = ("system", "system_prompt")
WEIGHT_KEYS = ("loss", "weight", "loss_weight", "loss_scale", "train")
# Beyond it no loss can be computed in single precision.
_LARGEST_WEIGHT = 1e6
_CALL_KEYS = ("tool_calls", "function_call")
# A turn that is a question and its answer.
_QUESTION_KEYS, _ANSWER_KEYS = ("human", "user"), ("assistant", "gpt")
_READ = keys(*_SPEAKER_KEYS, *_TEXT_KEYS, *WEIGHT_KEYS, *_CALL_KEYS, *MEDIA_KEYS)
_READ_OF_PAIRS = keys(*_QUESTION_KEYS, *_ANSWER_KEYS, *WEIGHT_KEYS)
_COMMON = {*_SPEAKER_KEYS, *_TEXT_KEYS}

# The role that each name of a speaker means.
ROLES: dict[str, Role] = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "model"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "tool_response", "observation", "function_response"), "tool"),
}
# Speakers whose text is a call, or several in a list, as JSON.
_CALLERS = ("tool_call", "function_call")
_SPEAKERS = keys(*ROLES, *_CALLERS)
_EXPECTED_SPEAKER = f"one of {', '.join(_SPEAKERS)}"


class Said(NamedTuple):
    """A turn whose texts are not read yet.

    Attributes:
        role: who speaks.
        pieces: texts, parts that are known, and slots.
        weight: see `paddlemix.conversation.Turn`.
        calls: likewise.
    """

    role: Role
    pieces: Sequence[Piece]
    weight: float | None = None
    calls: tuple[ToolCall, ...] = ()


def has_tags(said: Said) -> bool:
    """Tell whether a turn has slots, or texts that may hold tags; most have not, and need not be looked through."""
    return bool([one for one in said.pieces if isinstance(one, Slot) or (isinstance(one, str) and "<" in one)])


def turns_key(record: Record, reading: Reading) -> str:
    """Find the key of a record's list of turns.

    Args:
        record: the record.
        reading: of it.

    Returns:
        The key; the first that turns may have where there is none.

    Raises:
        RecordError: there are several.
    """
    key = only_key(record, TURN_KEYS, reading)
    return key or next((key for key in TURN_KEYS if key in record), TURN_KEYS[0])


def read_turns(record: Record, key: str, reading: Reading) -> list[Said]:
    """Read a list of turns: objects of a speaker and a text, pairs of a question and its answer, or objects of these.

    Args:
        record: the record.
        key: where the list stands; it may be JSON text.
        reading: of the record.

    Returns:
        The turns; calls that follow one another are one turn's.

    Raises:
        RecordError: there is no such list, a turn is written otherwise, or says more than is read.
    """
    value = record.get(key)
    if isinstance(value, str) and value.lstrip()[:1] == "[":  # as tables keep lists
        record = {**record, key: parsed(value, f"`{key}` of the record", reading)}
    items = require(record, key, list, "a list of turns", reading.source)
    said: list[Said] = []
    for number, item in enumerate(items):
        for one in _read_turn(item, key, f"`{key}[{number}]`", reading):
            if said and one.calls and said[-1].role == "assistant" and not any(map(is_given, one.pieces)):
                said[-1] = said[-1]._replace(calls=(*said[-1].calls, *one.calls))
            else:
                said.append(one)
    return said


def with_system(record: Record, turns: list[Said], reading: Reading) -> list[Said]:
    """Put the text of the `system` key, or `system_prompt`, before the turns.

    Args:
        record: the record; the key may be missing, null or "".
        turns: stay as they are.
        reading: of the record.

    Returns:
        The turns after their system turn, if there is one.

    Raises:
        RecordError: the value is no text.
    """
    key = only_key(record, SYSTEM_KEYS, reading)
    if key is None:
        return turns
    if not isinstance(record[key], str):
        raise reading.error(f"`{key}` of the record is {describe(record[key])}; expected a text or null")
    return [Said("system", (record[key],)), *turns]


def _read_turn(item: Any, key: str, name: str, reading: Reading) -> list[Said]:
    if isinstance(item, list) and len(item) == 2 and all(isinstance(text, str) for text in item):
        return [Said("user", (item[0],)), Said("assistant", (item[1],))]
    if isinstance(item, dict):
        speaker = next((one for one in _SPEAKER_KEYS if one in item), None)
        if speaker is not None:
            if not item.keys() <= _COMMON:
                check_keys(item, _READ, reading, f"{key}[]")
            return [_spoken(item, speaker, name, reading)]
        question, answer = (next((one for one in keys if one in item), "") for keys in (_QUESTION_KEYS, _ANSWER_KEYS))
        if question and answer:
            check_keys(item, _READ_OF_PAIRS, reading, f"{key}[]")
            texts = [require(item, one, str, "a text", reading.source, within=name) for one in (question, answer)]
            return [Said("user", (texts[0],)), Said("assistant", (texts[1],), _weight(item, name, reading))]
    raise reading.error(
        f'{name} is {describe(item)}; expected {{"role": ..., "content": ...}}, {{"from": ..., "value": ...}} or '
        '["question", "answer"]'
    )


def _spoken(item: Record, speaker_key: str, name: str, reading: Reading) -> Said:
    speaker = require(item, speaker_key, str, _EXPECTED_SPEAKER, reading.source, within=name).lower()
    if speaker not in _SPEAKERS:
        raise reading.error(f"`{speaker_key}` of {name} is {describe(item[speaker_key])}; expected {_EXPECTED_SPEAKER}")
    if speaker in ROLES and item.keys() <= _COMMON:  # as most are: there is no more to find
        text = item.get(_text_key(item))
        content = (text,) if isinstance(text, str) else _content(item, name, reading, may_be_missing=False)
        return Said(ROLES[speaker], content)
    weight = _weight(item, name, reading)
    if speaker in _CALLERS:
        text = require(item, _text_key(item), str, "a call as JSON", reading.source, within=name)
        return Said(
            "assistant", (), weight, calls_from(parsed(text, f"`{_text_key(item)}` of {name}", reading), name, reading)
        )
    calls_key = only_key(item, _CALL_KEYS, reading)
    calls = () if calls_key is None else calls_from(item[calls_key], name, reading)
    if calls and ROLES[speaker] != "assistant":
        raise reading.error(f"{name} is said by {speaker}, but calls functions; only an assistant may")
    return Said(ROLES[speaker], _content(item, name, reading, may_be_missing=bool(calls)), weight, calls)


def _text_key(item: Record) -> str:
    return next((key for key in _TEXT_KEYS if key in item), _TEXT_KEYS[0])


def _content(item: Record, name: str, reading: Reading, *, may_be_missing: bool) -> list[Piece]:
    key = _text_key(item)
    content = item.get(key)
    if content is None and may_be_missing:
        return []
    if isinstance(content, list):
        pieces = pieces_of(content, name, reading)
    else:
        pieces = [require(item, key, str, "a text or a list of parts", reading.source, within=name)]
    return _with_own_media(pieces, item, name, reading) if not MEDIA_KEYS.keys().isdisjoint(item) else pieces


def _with_own_media(pieces: list[Piece], item: Record, name: str, reading: Reading) -> list[Piece]:
    """Show what a turn lists for itself: where its placeholders stand, or before its text where it has none."""
    images = images_of(item, reading)
    if isinstance(images, dict):
        raise reading.error(f"the images of {name} are {describe(list(images))}; expected a list of paths")
    own: dict[str, list[Any]] = {IMAGE: list(images), VIDEO: list(videos_of(item, reading))}
    cut = [part for piece in pieces for part in (cut_at(piece, (IMAGE, VIDEO)) if isinstance(piece, str) else [piece])]
    for tag, listed in own.items():
        found = sum(isinstance(part, Slot) and part.tag == tag for part in cut)
        if listed and found not in (0, len(listed)):
            raise reading.error(f"{name} has {found} `{tag}`, but lists {len(listed)}; expected one each")
        if listed and not found:
            cut = [*listed, *cut]
    remaining = {tag: iter(listed) for tag, listed in own.items()}
    return [
        next(remaining[part.tag], part) if isinstance(part, Slot) and part.tag in remaining else part for part in cut
    ]


def _weight(item: Record, name: str, reading: Reading) -> float | None:
    """Read how much of a turn is learned; None where it says nothing."""
    weights = {key: _as_weight(item[key], key, name, reading) for key in WEIGHT_KEYS if item.get(key) is not None}
    if len(set(weights.values())) > 1:
        raise reading.error(f"{', '.join(f'`{key}`' for key in weights)} of {name} disagree; expected one of them")
    return next(iter(weights.values()), None)


def _as_weight(value: object, key: str, name: str, reading: Reading) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value <= _LARGEST_WEIGHT:
        raise reading.error(
            f"`{key}` of {name} is {describe(value)}; expected true, false, or a number from 0 to {_LARGEST_WEIGHT:g}"
        )
    return float(value)
