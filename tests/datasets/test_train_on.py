"""Which turns are learned, by a set's `train_on` and by weights of their own."""

from __future__ import annotations

import pytest

from paddlemix.conversation import Conversation, RecordId, Text, Turn
from paddlemix.datasets.train_on import with_weights

SOURCE = RecordId("a.json", 3)
ROLES = ("system", "user", "assistant", "tool", "assistant", "user", "assistant")


def conversation(*weights: float | None) -> Conversation:
    turns = (Turn(role, (Text("t"),), weight) for role, weight in zip(ROLES, weights, strict=True))  # type: ignore[arg-type]
    return Conversation(tuple(turns), SOURCE, notes=("Earlier.",))


@pytest.mark.parametrize(
    ("train_on", "weights"),
    [
        ("assistant", [None] * 7),
        ("last", [0, 0, 0, 0, 0, 0, 1]),
        ("all", [1] * 7),
    ],
)
def test_turns_without_a_weight_have_that_of_the_set(train_on, weights):
    weighed = with_weights(conversation(*[None] * 7), train_on)
    assert [turn.weight for turn in weighed.turns] == weights
    assert weighed.notes == ("Earlier.",)


@pytest.mark.parametrize("train_on", ["assistant", "last", "all"])
def test_a_turns_own_weight_takes_precedence(train_on):
    own = (0.0, 2.0, 0.5, 0.0, None, None, 0.0)
    weighed = with_weights(conversation(*own), train_on)
    assert [turn.weight for turn, weight in zip(weighed.turns, own, strict=True) if weight is not None] == [
        weight for weight in own if weight is not None
    ]


def test_a_record_of_which_nothing_is_learned_has_a_note():
    weights = (None, None, 0.0, None, 0.0, None, 0.0)
    assert with_weights(conversation(*weights), "assistant").notes == (
        "Earlier.",
        "Nothing of it is learned: none of its turns has a weight of more than 0.",
    )
    assert with_weights(conversation(*weights), "last").notes[1:]
    assert not with_weights(conversation(*weights), "all").notes[1:]
