"""From turns whose texts are not read yet to a conversation: slots are filled, markup is read, the rest is noted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from paddlemix.conversation import Conversation, Image, Part, Task, Text, Turn, Video
from paddlemix.datasets.reading.checks import build_conversation, plain_text
from paddlemix.datasets.reading.context import Reading
from paddlemix.datasets.reading.media import Named
from paddlemix.datasets.reading.places.tags import split_tags, without_escapes
from paddlemix.datasets.reading.slots import (
    BOX,
    IMAGE,
    NAME,
    VIDEO,
    Piece,
    Slot,
    cut_at,
    cut_at_other_spellings,
)
from paddlemix.datasets.reading.turns import Said
from paddlemix.datasets.reading.unread import note_unread, note_unused_placeholders

# Places that only texts of users, systems and tools have: models answer in words.
_MEDIA = (IMAGE, VIDEO)


@dataclass(frozen=True)
class Listed:
    """What the slots of one kind stand for.

    Attributes:
        tag: the kind, such as "<image>".
        key: where the record lists it.
        parts: what each slot becomes, in order.
    """

    tag: str
    key: str
    parts: Sequence[Sequence[Part]]


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
    named = images if isinstance(images, dict) else {}
    listed = [
        Listed(IMAGE, "images", [[image] for image in (images.values() if isinstance(images, dict) else images)]),
        Listed(VIDEO, "videos", [[video] for video in videos]),
    ]
    tags = (*named, *_MEDIA), tuple(one.tag for one in others)
    lists_media = any(one.parts for one in listed)
    turns = [_cut(said, *tags, reading, lists_media=lists_media) for said in joined(turns, reading)]
    turns = _with_slots(turns, listed, reading)
    filled = _filled(turns, [*listed, *others], named, reading)
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
    result: list[Said] = []
    for said in turns:
        last = result[-1] if result else None
        if reading.options.join_turns and last and _are_one(last, said):
            between = ("\n",) if last.pieces and said.pieces else ()
            result[-1] = replace(said, pieces=(*last.pieces, *between, *said.pieces))
        else:
            result.append(said)
    return result


def _are_one(first: Said, second: Said) -> bool:
    return first.role == second.role and first.role != "tool" and first.weight == second.weight and not first.calls


def _cut(said: Said, media: tuple[str, ...], others: tuple[str, ...], reading: Reading, *, lists_media: bool) -> Said:
    """Cut a turn's texts at the placeholders that count in it: those of images and videos do in no answer.

    Nor do they in a turn that shows images of its own while the record lists none: there they are words.
    """
    has_places = said.role != "assistant" and (lists_media or all(isinstance(piece, str) for piece in said.pieces))
    tags = (*(media if has_places else ()), *others)
    reads_any = has_places and reading.options.placeholders == "any"
    pieces: list[Piece] = []
    for piece in said.pieces:
        if not isinstance(piece, str) or "<" not in piece:
            pieces.append(piece)
            continue
        if not has_places and said.role != "assistant":
            note_unused_placeholders(piece, reading)
        text = piece if has_places else _without_escapes(piece)
        for one in cut_at(text, tags) if tags else [text]:
            pieces += cut_at_other_spellings(one) if reads_any and isinstance(one, str) else [one]
    return replace(said, pieces=pieces)


def _without_escapes(text: str) -> str:
    """Take the backslash away from placeholders where they do not count."""
    return text.replace(f"\\{IMAGE}", IMAGE).replace(f"\\{VIDEO}", VIDEO)


def _slots(turns: Iterable[Said]) -> list[Slot]:
    return [piece for said in turns for piece in said.pieces if isinstance(piece, Slot)]


def _with_slots(turns: list[Said], listed: Sequence[Listed], reading: Reading) -> list[Said]:
    """Add the slots that are missing altogether, and let `<image>` stand for videos where only these are listed."""
    images, videos = listed
    tags = [slot.tag for slot in _slots(turns)]
    if videos.parts and not images.parts and VIDEO not in tags and tags.count(IMAGE) == len(videos.parts):
        return [_renamed(said, IMAGE, VIDEO) for said in turns]
    has_named = any(tag not in (IMAGE, VIDEO, BOX, NAME) for tag in tags)
    missing = [
        Slot(one.tag)
        for one in listed
        for _ in one.parts
        if one.tag not in tags and not (one.tag == IMAGE and has_named)
    ]
    first_user = next((number for number, said in enumerate(turns) if said.role == "user"), None)
    if missing and first_user is None:
        raise reading.error("the record shows images or videos, but has no user's turn that could show them")
    return [
        replace(said, pieces=(*missing, *said.pieces)) if number == first_user else said
        for number, said in enumerate(turns)
    ]


def _renamed(said: Said, old: str, new: str) -> Said:
    pieces = [
        piece._replace(tag=new) if isinstance(piece, Slot) and piece.tag == old else piece for piece in said.pieces
    ]
    return replace(said, pieces=pieces)


def _filled(turns: list[Said], listed: Sequence[Listed], named: Named, reading: Reading) -> list[Said]:
    """Put what is listed into the slots."""
    slots = _slots(turns)
    for one in listed:
        _check_slots([slot for slot in slots if slot.tag == one.tag], one, named, slots, reading)
    first = 0 if any(slot.number == 0 for slot in slots) else 1
    remaining = {one.tag: iter(one.parts) for one in listed}
    parts = {one.tag: one.parts for one in listed}
    filled = []
    for said in turns:
        pieces: list[Piece] = []
        for piece in said.pieces:
            if not isinstance(piece, Slot):
                pieces.append(piece)
            elif piece.tag in named:
                pieces.append(named[piece.tag])
            elif piece.number is None:
                pieces += next(remaining[piece.tag])
            else:
                pieces += parts[piece.tag][piece.number - first]
        filled.append(replace(said, pieces=pieces))
    return filled


def _check_slots(own: list[Slot], listed: Listed, named: Named, slots: list[Slot], reading: Reading) -> None:
    """Refuse slots that do not show each listed thing once, or at least once where they are numbered."""
    count = len(listed.parts)
    if named and listed.tag == IMAGE and not own:
        missing = [name for name in named if not any(slot.tag == name for slot in slots)]
        if missing and len(missing) < len(named):
            raise reading.error(f"no turn shows the image {missing[0]}; expected each placeholder of the images")
        return
    numbers = [slot.number for slot in own if slot.number is not None]
    if numbers and len(numbers) == len(own):
        first = 0 if 0 in numbers else 1
        if {number - first for number in numbers} == set(range(count)):
            return
        shown = ", ".join(sorted({slot.spelled for slot in own}))
        expected = f"the numbers {first} to {count - 1 + first}"
        raise reading.error(f"the turns show {shown}, but `{listed.key}` lists {count}; expected {expected}")
    if len(own) != count or numbers:
        raise reading.error(
            f"the turns have {len(own)} `{listed.tag}`, but `{listed.key}` lists {count}; expected one each (a "
            f"`\\{listed.tag}` with a backslash is text)"
        )


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
