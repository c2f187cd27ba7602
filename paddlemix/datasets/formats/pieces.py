"""A turn on its way from text to parts: stretches of text whose tags are not read yet, between parts that are known."""

from __future__ import annotations

from collections.abc import Sequence

from paddlemix.conversation import Image, Part, RecordId, Role, Turn
from paddlemix.datasets.formats.tags import split_tags

Piece = str | Part


def split_turns(turns: Sequence[tuple[Role, Sequence[Piece]]], source: RecordId) -> list[Turn]:
    """Read the tags in the text of turns; a box lies on the image that was shown last before it.

    Args:
        turns: the role and the pieces of each.
        source: the record to name in errors.

    Returns:
        The turns.

    Raises:
        RecordError: a tag cannot be read.
    """
    shown = 0
    result = []
    for role, pieces in turns:
        parts: list[Part] = []
        for piece in pieces:
            if isinstance(piece, str):
                parts += split_tags(piece, max(shown - 1, 0), source)
            else:
                parts.append(piece)
                shown += isinstance(piece, Image)
        result.append(Turn(role, tuple(parts)))
    return result
