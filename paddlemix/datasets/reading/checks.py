"""What every conversation has to hold, whatever it was read from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from paddlemix.conversation import Conversation, Image, Part, Placed, Reference, Task, Text, Turn, Video
from paddlemix.datasets.reading.context import Reading

# Who may speak behind whom; "" stands for the beginning.
_MAY_FOLLOW = frozenset({
    ("", "user"), ("user", "assistant"), ("assistant", "user"), ("assistant", "tool"), ("tool", "assistant"),
    ("tool", "tool"),
})  # fmt: skip


def plain_text(parts: Iterable[Part]) -> str:
    """Leave out tags, boxes, points and images.

    Args:
        parts: the parts of a turn.

    Returns:
        What the parts say, in the form in which answers are scored.
    """
    return "".join([part.text for part in parts if isinstance(part, (Text, Reference))])


def build_conversation(
    turns: Sequence[Turn],
    reading: Reading,
    *,
    answers: tuple[str, ...] = (),
    tools: tuple[str, ...] = (),
    task: Task = "chat",
) -> Conversation:
    """Put turns together and check what every conversation has to hold.

    Args:
        turns: the turns in their order.
        reading: of the record.
        answers: the texts to score an answer against.
        tools: see `Conversation.tools`.
        task: which metric fits.

    Returns:
        The conversation.

    Raises:
        RecordError: the roles do not follow one another as they have to, an assistant's turn is blank, an image or
            video stands in a turn that may show none, or a box or a point has no image.
    """
    _check_order(turns, reading)
    for number, turn in enumerate(turns):
        _check_turn(turn, number, reading)
    conversation = Conversation(
        tuple(turns), reading.source, answers=answers, task=task, tools=tools, notes=reading.notes
    )
    placed = [part for turn in turns for part in turn.parts if isinstance(part, Placed)]
    if placed and any(part.video is None for part in placed) and not conversation.images:
        raise reading.error("the record has boxes but no image that they could lie on")
    return conversation


def _check_order(turns: Sequence[Turn], reading: Reading) -> None:
    roles = [turn.role for turn in turns]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    before = ["", *spoken]
    if before[-1] != "assistant" or not _MAY_FOLLOW.issuperset(zip(before, spoken, strict=False)):
        twice = any(first == second != "tool" for first, second in pairwise(spoken))
        remedy = "; set `join_turns` of the set to true to join consecutive turns of one role" if twice else ""
        raise reading.error(
            f"the turns are {', '.join(roles) or 'none'}; expected user, assistant, user, assistant and so on, "
            f"ending with assistant, after at most one system turn{remedy}"
        )


def _check_turn(turn: Turn, number: int, reading: Reading) -> None:
    if turn.role in ("system", "assistant"):
        _refuse_shown(turn, number, reading)
    if turn.role != "assistant" or turn.calls:
        return
    if not plain_text(turn.parts).strip() and not any(isinstance(part, Placed) for part in turn.parts):
        raise reading.error(f"turn {number} (assistant) is blank; expected the answer to learn")


def _refuse_shown(turn: Turn, number: int, reading: Reading) -> None:
    for part in turn.parts:
        if isinstance(part, (Image, Video)):
            name = "an image" if isinstance(part, Image) else "a video"
            raise reading.error(f"turn {number} ({turn.role}) shows {name}; only turns of users and tools may")
