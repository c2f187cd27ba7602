"""Texts whose placeholders, such as `<image>`, stand for what lists of the record hold, in the same order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from paddlemix.conversation import Image, Part, Video
from paddlemix.datasets.reading.context import Reading
from paddlemix.datasets.reading.media import Named
from paddlemix.datasets.reading.slots.placeholders import (
    BOX,
    IMAGE,
    NAME,
    VIDEO,
    Piece,
    Slot,
    cut_at,
    cut_at_other_spellings,
)
from paddlemix.datasets.reading.turns import Said, has_tags
from paddlemix.datasets.reading.unread import note_unused_placeholders

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


def fill(
    turns: Sequence[Said],
    reading: Reading,
    *,
    images: Sequence[Image] | Named,
    videos: Sequence[Video],
    others: Sequence[Listed],
) -> list[Said]:
    """Put everything listed where its slots are.

    Args:
        turns: of the record.
        reading: of it.
        images: that it lists; where no slot of a kind is anywhere, all of it comes before the first question.
        videos: likewise. Where images are listed nowhere, `<image>` stands for them too.
        others: names and boxes, which answers have slots for too.

    Returns:
        The turns, no slot left in them.

    Raises:
        RecordError: there are more slots than things listed or fewer.
    """
    if not (images or videos or others or any(map(has_tags, turns))):  # as in sets of texts, and of images inside them
        return list(turns)
    named = images if isinstance(images, dict) else {}
    shown = list(images.values()) if isinstance(images, dict) else list(images)
    tags = (*named, *_MEDIA), tuple(one.tag for one in others)
    lists_media = bool(shown or videos)
    cut = [_cut(said, *tags, reading, lists_media=lists_media) for said in turns]
    slots = _slots(cut)
    if not slots and not others:  # as in most records, which need no more
        return _with_first([*shown, *videos], cut, reading)
    if not named and not others and _are_in_order(slots, len(shown), len(videos)):  # as in most of the others
        return _in_order(cut, {IMAGE: iter(shown), VIDEO: iter(videos)})
    listed = [Listed(IMAGE, "images", [[one] for one in shown]), Listed(VIDEO, "videos", [[one] for one in videos])]
    return _filled(_with_slots(cut, listed, slots, reading), [*listed, *others], named, reading)


def _cut(said: Said, media: tuple[str, ...], others: tuple[str, ...], reading: Reading, *, lists_media: bool) -> Said:
    """Cut a turn's texts at the placeholders that count in it: those of images and videos do in no answer.

    Nor do they in a turn that shows images of its own while the record lists none: there they are words.
    """
    if not has_tags(said):
        return said
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
    return said._replace(pieces=pieces)


def _without_escapes(text: str) -> str:
    """Take the backslash away from placeholders where they do not count."""
    return text.replace(f"\\{IMAGE}", IMAGE).replace(f"\\{VIDEO}", VIDEO)


def _slots(turns: Iterable[Said]) -> list[Slot]:
    return [piece for said in turns for piece in said.pieces if isinstance(piece, Slot)]


def _are_in_order(slots: Sequence[Slot], images: int, videos: int) -> bool:
    """Tell whether there is a slot for each image and video that is listed, none of them numbered."""
    tags = [slot.tag for slot in slots if slot.number is None]
    return len(tags) == len(slots) == images + videos and tags.count(IMAGE) == images and tags.count(VIDEO) == videos


def _in_order(turns: list[Said], media: Mapping[str, Iterator[Image | Video]]) -> list[Said]:
    """Put the next image or video into each slot."""
    return [
        said._replace(pieces=[next(media[piece.tag]) if isinstance(piece, Slot) else piece for piece in said.pieces])
        for said in turns
    ]


def _with_slots(turns: list[Said], listed: Sequence[Listed], slots: list[Slot], reading: Reading) -> list[Said]:
    """Add the slots that are missing altogether, and let `<image>` stand for videos where only these are listed."""
    images, videos = listed
    tags = [slot.tag for slot in slots]
    if videos.parts and not images.parts and VIDEO not in tags and tags.count(IMAGE) == len(videos.parts):
        return [_renamed(said, IMAGE, VIDEO) for said in turns]
    has_named = any(tag not in (IMAGE, VIDEO, BOX, NAME) for tag in tags)
    missing = [
        Slot(one.tag)
        for one in listed
        for _ in one.parts
        if one.tag not in tags and not (one.tag == IMAGE and has_named)
    ]
    return _with_first(missing, turns, reading)


def _with_first(pieces: Sequence[Piece], turns: list[Said], reading: Reading) -> list[Said]:
    """Put pieces before what the first user says."""
    if not pieces:
        return turns
    first_user = next((number for number, said in enumerate(turns) if said.role == "user"), None)
    if first_user is None:
        raise reading.error("the record shows images or videos, but has no user's turn that could show them")
    first = turns[first_user]
    return [
        *turns[:first_user],
        first._replace(pieces=(*pieces, *first.pieces)),
        *turns[first_user + 1 :],
    ]


def _renamed(said: Said, old: str, new: str) -> Said:
    pieces = [
        piece._replace(tag=new) if isinstance(piece, Slot) and piece.tag == old else piece for piece in said.pieces
    ]
    return said._replace(pieces=pieces)


def _filled(turns: list[Said], listed: Sequence[Listed], named: Named, reading: Reading) -> list[Said]:
    """Put what is listed into the slots."""
    slots = _slots(turns)
    for one in listed:
        _check_slots([slot for slot in slots if slot.tag == one.tag], one, named, slots, reading)
    remaining = {one.tag: iter(one.parts) for one in listed}
    parts = {one.tag: one.parts for one in listed}
    first = {tag: _first_number([slot for slot in slots if slot.tag == tag]) for tag in parts}
    filled = []
    for said in turns:
        if not any(isinstance(piece, Slot) for piece in said.pieces):
            filled.append(said)
            continue
        pieces: list[Piece] = []
        for piece in said.pieces:
            if not isinstance(piece, Slot):
                pieces.append(piece)
            elif piece.tag in named:
                pieces.append(named[piece.tag])
            elif piece.number is None:
                pieces += next(remaining[piece.tag])
            else:
                pieces += parts[piece.tag][piece.number - first[piece.tag]]
        filled.append(said._replace(pieces=pieces))
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
        first = _first_number(own)
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


def _first_number(slots: Iterable[Slot]) -> int:
    """Tell from which number on placeholders count."""
    return 0 if any(slot.number == 0 for slot in slots) else 1
