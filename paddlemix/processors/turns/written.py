"""Turns as a chat template takes them: who speaks, the pieces of what is said, and what their tokens weigh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from paddlemix.contract import Piece, Written
from paddlemix.conversation import Role, ToolCall, Turn


class WrittenTurn(NamedTuple):
    """A turn whose texts, references, boxes and points are pieces of a prompt.

    Attributes:
        role: who speaks.
        written: what is said, with images and videos in their places.
        weight: by what the loss of each token of the turn is multiplied, that of its end included; 0 is context only.
        calls: the functions that an assistant calls behind its words.
    """

    role: Role
    written: Sequence[Written]
    weight: float
    calls: tuple[ToolCall, ...] = ()

    @property
    def is_answer(self) -> bool:
        """Whether a model says it."""
        return self.role == "assistant"

    def spoken(self, piece: Piece) -> Piece:
        """Give a piece the weight of the turn that it is a part of."""
        return Piece(piece.text, piece.control, self.weight, piece.repeat, self.is_answer)

    def weighed(self) -> WrittenTurn:
        """Give all pieces the turn's weight."""
        if not self.weight and not self.is_answer:
            return self  # as pieces are written
        said = [self.spoken(one) if isinstance(one, Piece) else one for one in self.written]
        return WrittenTurn(self.role, said, self.weight, self.calls)


def written_turn(turn: Turn, written: Sequence[Written]) -> WrittenTurn:
    """Put a turn and what was written of it together.

    Args:
        turn: of a conversation.
        written: its parts as pieces, images and videos.

    Returns:
        The turn; one that calls functions has no empty pieces, so that it can be told whether it says anything.
    """
    if turn.calls:
        written = [one for one in written if not isinstance(one, Piece) or one.text]
    return WrittenTurn(turn.role, written, loss_weight(turn), turn.calls)


def loss_weight(turn: Turn) -> float:
    """Tell by what the loss of each of a turn's tokens is multiplied; without a weight of its own an answer has 1.

    Args:
        turn: of a conversation.

    Returns:
        A number that float32 holds, at least 0.
    """
    if turn.weight is None:
        return 1.0 if turn.role == "assistant" else 0.0
    # Rounded here, a weight is 0 for counted and for encoded tokens alike.
    weight = float(np.float32(turn.weight))
    assert 0 <= weight < np.inf, f"formats refuse a weight of {turn.weight}"
    return weight
