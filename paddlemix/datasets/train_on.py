"""Which turns of a set's conversations are learned, where their records do not say so themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

from paddlemix.conversation import Conversation, Turn

TrainOn = Literal["assistant", "last", "all"]
CHOICES: tuple[TrainOn, ...] = get_args(TrainOn)

_NOTHING = "Nothing of it is learned: none of its turns has a weight of more than 0."


def with_weights(conversation: Conversation, train_on: TrainOn) -> Conversation:
    """Weigh the turns that have no weight of their own, and note where nothing is learned.

    Args:
        conversation: any.
        train_on: "assistant" leaves it to the model's family, which learns what the assistant says; "last" learns the
            last of these turns only, "all" whatever is said.

    Returns:
        The conversation; but for "assistant" every turn has a weight.
    """
    if train_on == "assistant" and any(turn.role == "assistant" and turn.weight is None for turn in conversation.turns):
        return conversation  # as most are
    last = max((place for place, turn in enumerate(conversation.turns) if turn.role == "assistant"), default=-1)
    learned = {"last": (last,), "all": range(len(conversation.turns))}
    turns = conversation.turns
    if train_on in learned:
        turns = tuple(_weighed(turn, place in learned[train_on]) for place, turn in enumerate(turns))
    is_learned = any(turn.weight or (turn.weight is None and turn.role == "assistant") for turn in turns)
    notes = conversation.notes if is_learned else (*conversation.notes, _NOTHING)
    return replace(conversation, turns=turns, notes=notes)


def _weighed(turn: Turn, is_learned: bool) -> Turn:
    return turn if turn.weight is not None else replace(turn, weight=float(is_learned))
