"""What programs and records hand to a processor beside texts: who speaks, and what functions and calls are named.

A template writes these as they stand, so that one with a line end or a tag in it could open a turn of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from paddlemix.bounded_json import shown, without_surrogates
from paddlemix.conversation import Conversation, RawAnswer, RecordError, Reference, Role, Text

_ROLES = get_args(Role)
_WITH_TEXT = (Text, Reference, RawAnswer)
# Templates of other models know more roles; a message's is a word.
_ROLE = re.compile(r"[A-Za-z][\w.-]{0,63}")
# Of functions, and ids of calls: no line ends, and nothing that ends a JSON text or begins a tag.
_NAME = re.compile(r'[^\x00-\x1f\x7f-\x9f\u2028\u2029"\\<>{}]{1,256}')
_EXPECTED_NAME = 'a name of at most 256 characters on one line, without " \\ < > { }'
_CALL_KEYS = ("id", "name")
_MESSAGE_KEYS = ("tool_call_id", "name")


def check_conversation(conversation: Conversation) -> None:
    """Check who speaks, that names are names, and that texts are text in any encoding.

    Args:
        conversation: any.

    Raises:
        RecordError: a role is none, a name of a called function is none, or a text holds half of a surrogate pair.
    """
    for turn in conversation.turns:
        if turn.role not in _ROLES:
            raise _error(conversation, f"the role of a turn is {shown(turn.role)}; expected one of {', '.join(_ROLES)}")
        for call in turn.calls:
            if not _is_name(call.name):
                raise _error(conversation, f"a called function is {shown(call.name)}; expected {_EXPECTED_NAME}")
    texts = _texts(conversation)
    if without_surrogates("".join(texts)):  # all at once: this is done for every record
        return
    odd = next(text for text in texts if not without_surrogates(text))
    raise _error(
        conversation,
        f"the text {shown(odd)} holds half of a surrogate pair, which is no text; write the whole character",
    )


def check_messages(messages: Iterable[Any]) -> None:
    """Check the roles of messages, and the names and ids of their calls.

    Args:
        messages: of roles and contents, as the field writes them.

    Raises:
        ValueError: a message has no role, or a role, name or id is none.
    """
    for place, message in enumerate(messages):
        role = message.get("role") if isinstance(message, Mapping) else None
        if not isinstance(role, str) or not _ROLE.fullmatch(role):
            raise ValueError(f"messages[{place}]: `role` is {shown(role)}; expected a word such as user or assistant.")
        for key, name in _named(message):
            if name is not None and not _is_name(name):
                raise ValueError(f"messages[{place}]: `{key}` is {shown(name)}; expected {_EXPECTED_NAME}.")


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None and without_surrogates(name)


def _named(message: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """List the names and ids in a message, each with its key."""
    yield from ((key, message.get(key)) for key in _MESSAGE_KEYS)
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, (list, tuple)) else ():
        if isinstance(call, Mapping):
            yield from ((f"tool_calls.{key}", call.get(key)) for key in _CALL_KEYS)
            function = call.get("function")
            if isinstance(function, Mapping):
                yield "tool_calls.function.name", function.get("name")


def _texts(conversation: Conversation) -> list[str]:
    texts = [part.text for turn in conversation.turns for part in turn.parts if isinstance(part, _WITH_TEXT)]
    for turn in conversation.turns:
        texts += [call.arguments for call in turn.calls]
    return [*texts, *conversation.tools]


def _error(conversation: Conversation, problem: str) -> RecordError:
    return RecordError(conversation.source, f"{problem}.")
