"""From turns whose texts are not read yet to a conversation: slots are filled, markup is read, the rest is noted."""

from __future__ import annotations

from collections.abc import Sequence

from paddlemix.conversation import Conversation, Image, Part, Task, Text, Turn, Video
from paddlemix.datasets.reading.checks import build_conversation, plain_text
from paddlemix.datasets.reading.context import Reading
from paddlemix.datasets.reading.media import Named
from paddlemix.datasets.reading.places.tags import split_tags, without_escapes
from paddlemix.datasets.reading.slots.filling import Listed, fill
from paddlemix.datasets.reading.slots.placeholders import Slot
from paddlemix.datasets.reading.turns import Said
from paddlemix.datasets.reading.unread import note_unread


def converse(
    turns: Sequence[Said],
    reading: Reading,
    *,
    images: Sequence[Image] | Named = (),
    videos: Sequence[Video] = (),
    others: Sequence[Listed] = (),
    markup: bool,
    tools: tuple[str, ...] = (),
    answers: tuple[str, ...] = (),
    task: Task = "chat",
) -> Conversation:
    """Put everything listed where its slots are, and read the markup of the text between.

    Args:
        turns: of the record.
        reading: of it.
        images: that it lists; where no slot of a kind is anywhere, all of it comes before the first question.
        videos: likewise. Where images are listed nowhere, `<image>` stands for them too.
        others: names and boxes, which answers have slots for too.
        markup: whether the format has `<ref>` and `<box>` in its texts; see `ReadOptions.markup`.
        tools: see `Conversation.tools`.
        answers: see `Conversation.answers`, their markup not read yet.
        task: which metric fits.

    Returns:
        The conversation.

    Raises:
        RecordError: there are more slots than things listed or fewer, or the turns make no conversation.
    """
    filled = fill(joined(turns, reading), reading, images=images, videos=videos, others=others)
    markup = markup if reading.options.markup is None else reading.options.markup
    read = _read(filled, reading, markup=markup)
    spoken = tuple(plain_text(split_tags(answer, 0, reading.source, markup=markup)) for answer in answers)
    return build_conversation(read, reading, answers=spoken, tools=tools, task=task)


def joined(turns: Sequence[Said], reading: Reading) -> list[Said]:
    """Join consecutive turns of users, and of assistants, where the set asks for it.

    Args:
        turns: of the record.
        reading: of it.

    Returns:
        The turns, a line end between what was joined.
    """
    if not reading.options.join_turns:
        return list(turns)
    result: list[Said] = []
    for said in turns:
        last = result[-1] if result else None
        if last and _are_one(last, said):
            between = ("\n",) if last.pieces and said.pieces else ()
            result[-1] = said._replace(pieces=(*last.pieces, *between, *said.pieces))
        else:
            result.append(said)
    return result


def _are_one(first: Said, second: Said) -> bool:
    return first.role == second.role and first.role != "tool" and first.weight == second.weight and not first.calls


def _read(turns: Sequence[Said], reading: Reading, *, markup: bool) -> list[Turn]:
    """Read the markup in the texts of turns.

    A box lies on the image that was shown last before it; in a conversation of videos alone, on the last video.
    """
    kinds = {type(piece) for said in turns for piece in said.pieces}
    kind = next((kind for kind in (Image, Video) if kind in kinds), None)
    shown = 0
    result = []
    for said in turns:
        parts: list[Part] = []
        for piece in said.pieces:
            assert not isinstance(piece, Slot), "slots were filled before"
            if isinstance(piece, str):
                if "<" not in piece:  # as in most
                    parts += (Text(piece),) if piece else ()
                    continue
                read = _split(piece, kind, max(shown - 1, 0), reading, markup=markup)
                note_unread(read, said, reading)
                parts += read
            else:
                parts.append(piece)
                shown += type(piece) is kind
        result.append(Turn(said.role, tuple(parts), said.weight, said.calls))
    return result


def _split(text: str, kind: type | None, index: int, reading: Reading, *, markup: bool) -> tuple[Part, ...]:
    """Read the markup of a text; it speaks of what is shown, so where nothing is, whatever looks like it is text."""
    if kind is None:
        return (Text(without_escapes(text) if markup else text),) if text else ()
    image, video = (index, None) if kind is Image else (None, index)
    return split_tags(text, image, reading.source, markup=markup, video=video)
