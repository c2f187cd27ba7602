"""References, boxes and points written as tags inside text, in the spelling of Qwen-VL and in that of Qwen2-VL.

    <ref>bus</ref><box>(178,279),(806,884)</box>
    <ref>its door</ref><box>(246,113)</box>
    <|object_ref_start|>bus<|object_ref_end|><|box_start|>(178,279),(806,884)<|box_end|>

Coordinates count thousandths of the image's width and height. Boxes belong to the reference before them.
"""

from __future__ import annotations

import re

from paddlemix.conversation import Box, Part, Point, RecordError, RecordId, Reference, Text

_SPELLINGS = (
    ("<ref>", "</ref>", "<box>", "</box>"),
    ("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>"),
)
# Four-cornered boxes have no part of their own; as plain text they would teach a model to spell out the tag.
_REFUSED = ("<quad>", "</quad>", "<|quad_start|>", "<|quad_end|>")
_LARGEST = 1000
_SHOWN_CHARACTERS = 40

_TAG = re.compile("|".join(re.escape(tag) for tag in (*sum(_SPELLINGS, ()), *_REFUSED)))
_SPANS = {
    start: re.compile(f"{re.escape(start)}(.*?){re.escape(end)}", re.DOTALL)
    for spelling in _SPELLINGS
    for start, end in (spelling[:2], spelling[2:])
}
_BOX_STARTS = {spelling[2] for spelling in _SPELLINGS}
_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_CORNER = rf"\s*\({_NUMBER},{_NUMBER}\)\s*"
_PLACE = re.compile(rf"{_CORNER}(?:,{_CORNER})?", re.ASCII)


def split_tags(text: str, image: int, source: RecordId, *, markup: bool = True) -> tuple[Part, ...]:
    """Split a text at its tags.

    Args:
        text: what one role says between two images.
        image: the image that boxes and points in this text lie on, an index into the conversation's images.
        source: the record to name in errors.

    Returns:
        The text, references, boxes and points in their order; empty for an empty text.

    Raises:
        RecordError: a tag has no partner or is not read at all, a reference is blank, or a box is malformed, out of
            0..1000 or without an area.
    """
    parts: list[Part] = []
    position = 0
    while tag := _TAG.search(text, position):
        if tag.start() > position:
            parts.append(Text(text[position : tag.start()]))
        content, position = _span(text, tag, source)
        parts.append(_place(content, image, source) if tag[0] in _BOX_STARTS else _reference(content, source))
    if position < len(text):
        parts.append(Text(text[position:]))
    return tuple(parts)


def _span(text: str, tag: re.Match[str], source: RecordId) -> tuple[str, int]:
    """Return what stands between a tag and its partner, and where the text goes on after them."""
    span = _SPANS[tag[0]].match(text, tag.start()) if tag[0] in _SPANS else None
    if span is None or _TAG.search(span[1]):
        shown = text[tag.start() : tag.start() + _SHOWN_CHARACTERS]
        raise RecordError(
            source,
            f"tag `{tag[0]}` at character {tag.start()} does not belong to a complete pair: {shown!r}; "
            "expected `<ref>name</ref>` and `<box>(x1,y1),(x2,y2)</box>`, not nested",
        )
    return span[1], span.end()


def _reference(content: str, source: RecordId) -> Reference:
    if not content.strip():
        raise RecordError(source, "a reference is blank; expected a name between `<ref>` and `</ref>`")
    return Reference(content)


def _place(content: str, image: int, source: RecordId) -> Box | Point:
    place = _PLACE.fullmatch(content)
    if place is None:
        raise RecordError(source, f"box {content!r} is malformed; expected `(x1,y1),(x2,y2)`, or `(x,y)` for a point")
    numbers = [float(number) for number in place.groups() if number is not None]
    if min(numbers) < 0 or max(numbers) > _LARGEST:
        raise RecordError(
            source, f"box {content!r} leaves 0..{_LARGEST}; expected thousandths of the image's width and height"
        )
    if len(numbers) == 2:
        x, y = numbers
        return Point(x, y, unit="thousandth", image=image)
    x1, y1, x2, y2 = numbers
    if x2 <= x1 or y2 <= y1:
        raise RecordError(source, f"box {content!r} has no area; expected x1 < x2 and y1 < y2")
    return Box(x1, y1, x2, y2, unit="thousandth", image=image)
