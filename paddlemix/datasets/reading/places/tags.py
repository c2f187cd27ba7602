"""References, boxes, points and quads written as tags inside text, in the spelling of Qwen-VL and in that of Qwen2-VL.

    <ref>bus</ref><box>(178,279),(806,884)</box>
    <ref>its door</ref><box>(246,113)</box>
    <ref>its number</ref><quad>(10,20),(80,30),(78,50),(8,40)</quad>
    <|object_ref_start|>bus<|object_ref_end|><|box_start|>(178,279),(806,884)<|box_end|>

Coordinates count thousandths of the image's width and height. Boxes belong to the reference before them. A backslash
before a tag makes it text: `\\<ref>` says `<ref>`.
"""

from __future__ import annotations

import re

from paddlemix.conversation import Part, Placed, RecordError, RecordId, Reference, Text
from paddlemix.datasets.reading.places.boxes import as_place, look_like_fractions

# The second spelling is that of control tokens, which hardly stands in a text by chance.
_ANGLES = {"<ref>": "</ref>", "<box>": "</box>", "<quad>": "</quad>"}
_BARS = {
    "<|object_ref_start|>": "<|object_ref_end|>",
    "<|box_start|>": "<|box_end|>",
    "<|quad_start|>": "<|quad_end|>",
}
_ENDS = {**_ANGLES, **_BARS}
_REFS = ("<ref>", "<|object_ref_start|>")
_QUADS = ("<quad>", "<|quad_start|>")
_LARGEST = 1000
_SHOWN_CHARACTERS = 40
_WAY_OUT = "; if it is no tag, write a backslash before it, or set `markup` of the set to false"


def _tags(ends: dict[str, str]) -> re.Pattern[str]:
    names = "|".join(map(re.escape, (*ends, *ends.values())))
    return re.compile(rf"(?P<escape>\\)?(?P<name>{names})")


_ANY_TAG, _BAR_TAG = _tags(_ENDS), _tags(_BARS)
_NUMBER = r"\s*-?\d+(?:\.\d+)?\s*"
_NUMBERS = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)
_CORNER = rf"\s*\({_NUMBER},{_NUMBER}\)\s*"
_BOX = re.compile(rf"{_CORNER}(?:,{_CORNER})?", re.ASCII)
_QUAD = re.compile(",".join([_CORNER] * 4), re.ASCII)


def split_tags(
    text: str, image: int | None, source: RecordId, *, markup: bool = True, video: int | None = None
) -> tuple[Part, ...]:
    """Split a text at its tags.

    Args:
        text: what one role says between two images.
        image: the image that boxes and points in this text lie on, an index into the conversation's images; None where
            there is none.
        source: the record to name in errors.
        markup: whether tags in angle brackets are read, and malformed tags refused. Else only whole tags of Qwen2-VL's
            spelling are read, and only where there is something that they may lie on; all else is text.
        video: the video that they lie on in place of an image, an index into the conversation's videos.

    Returns:
        The text, references, boxes, points and quads in their order; empty for an empty text.

    Raises:
        RecordError: with `markup`, a tag has no partner, a reference is blank, or a box is malformed, out of 0..1000 or
            without an area.
    """
    if "<" not in text or (not markup and image is None and video is None):
        return (Text(text),) if text else ()
    pattern = _ANY_TAG if markup else _BAR_TAG
    parts: list[Part] = []
    said, position = "", 0
    while tag := pattern.search(text, position):
        said += text[position : tag.start()]
        position = tag.end()
        if tag["escape"]:
            said += tag["name"]
            continue
        span = _span(text, tag, pattern)
        problem = _problem(text, tag, span)
        if problem and markup:
            raise RecordError(source, problem + _WAY_OUT)
        if problem or span is None:
            said += tag["name"]
            continue
        content, end = span
        part = Reference(content) if tag["name"] in _REFS else _place(tag["name"], content, image or 0, video, source)
        parts += [Text(said), part] if said else [part]
        said, position = "", end
    said += text[position:]
    return (*parts, Text(said)) if said else tuple(parts)


def without_escapes(text: str) -> str:
    """Take the backslashes away from tags in a text whose tags are not read, though its format has some."""
    return _ANY_TAG.sub(lambda tag: tag["name"], text)


def _span(text: str, tag: re.Match[str], pattern: re.Pattern[str]) -> tuple[str, int] | None:
    """Return what stands between a tag and its partner, and where the text goes on; None if another tag comes first."""
    content, position = "", tag.end()
    for following in pattern.finditer(text, position):
        content += text[position : following.start()]
        position = following.end()
        if not following["escape"]:
            return (content, position) if following["name"] == _ENDS.get(tag["name"]) else None
        content += following["name"]
    return None


def _problem(text: str, tag: re.Match[str], span: tuple[str, int] | None) -> str:
    """Tell why a tag, with what was found up to its partner, is malformed; "" where it is not."""
    name = tag["name"]
    if span is None:
        shown = text[tag.start() : tag.start() + _SHOWN_CHARACTERS]
        return (
            f"tag `{name}` at character {tag.start()} does not belong to a complete pair: {shown!r}; expected "
            "`<ref>name</ref>`, `<box>(x1,y1),(x2,y2)</box>` or `<quad>` with four corners, not nested"
        )
    content = span[0]
    if name in _REFS:
        return "" if content.strip() else "a reference is blank; expected a name between `<ref>` and `</ref>`"
    if name in _QUADS:
        expected = "`(x1,y1),(x2,y2),(x3,y3),(x4,y4)`"
        return "" if _QUAD.fullmatch(content) else f"quad {content!r} is malformed; expected {expected}"
    expected = "`(x1,y1),(x2,y2)`, or `(x,y)` for a point"
    return "" if _BOX.fullmatch(content) else f"box {content!r} is malformed; expected {expected}"


def _place(name: str, content: str, image: int, video: int | None, source: RecordId) -> Placed:
    """Make what well-formed corners mean."""
    numbers = [float(number) for number in _NUMBERS.findall(content)]
    kind = "quad" if name in _QUADS else "box"
    if look_like_fractions(numbers):
        raise RecordError(
            source,
            f"{kind} {content!r} looks like fractions of the sides; expected thousandths of the image's width and "
            "height",
        )
    if min(numbers) < 0 or max(numbers) > _LARGEST:
        raise RecordError(
            source, f"{kind} {content!r} leaves 0..{_LARGEST}; expected thousandths of the image's width and height"
        )
    return as_place(numbers, "thousandth", f"a {kind} is {content!r}", source, image=image, video=video)
