"""Whether the boxes, points and quads of a record lie on what they are said to lie on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from paddlemix.contract import PlaceSizes, Size
from paddlemix.conversation import Conversation, Placed, Point, Quad, RecordError, goes_round
from paddlemix.media.data_url import shown
from paddlemix.media.images import lies_on_its_side
from paddlemix.media.opening import MAX_PIXELS, ImageOpening
from paddlemix.media.records import naming_the_record
from paddlemix.processors.coordinates import size_under

# Of a side: labelling tools round, and reach over an edge by a pixel or a thousandth.
_ROUNDING = 1 / 1000
# Of a box's own side: more of it is no rounding, however few pixels it is.
_LARGEST_LOSS = 1 / 10
# Of a side: a point further out is no point of the image.
_POINT_REACH = 1 / 100
_FARTHEST = 1e12  # pixels


def check_places(conversation: Conversation, sizes: PlaceSizes) -> None:
    """Refuse boxes, points and quads outside what they lie on.

    Args:
        conversation: any.
        sizes: of all that it shows.

    Raises:
        RecordError: a corner is no finite number, one lies on nothing that the conversation shows, a box or a quad has
            no area inside, or a point is more than a hundredth of a side outside.
    """
    for placed, size in _placed(conversation, sizes):
        if not _is_finite(placed, size):
            raise RecordError(
                conversation.source,
                f"a {type(placed).__name__.lower()} has a corner that is NaN, infinite or beyond {_FARTHEST:g} pixels; "
                "expected places on what is shown",
            )
        if not _meets(placed, size):
            with naming_the_record(conversation):
                raise RecordError(conversation.source, _problem(placed, size, conversation))


def count_clamped(conversation: Conversation, sizes: PlaceSizes) -> int:
    """Count the boxes, points and quads that stick out by more than rounding.

    Args:
        conversation: with nothing that `check_places` refuses.
        sizes: of all that it shows.

    Returns:
        How many a model sees clamped.
    """
    return sum(_sticks_out(placed, size) for placed, size in _placed(conversation, sizes))


def clamped(placed: Placed, size: Size) -> tuple[float, ...]:
    """Move the corners that lie outside an image to its edge.

    Args:
        placed: of a record.
        size: of the original image.

    Returns:
        x and y of each corner in turn, in pixels.
    """
    return tuple(min(max(value, 0.0), size[place % 2]) for place, value in enumerate(placed.in_pixels(*size)))


def _placed(conversation: Conversation, sizes: PlaceSizes) -> Iterator[tuple[Placed, Size]]:
    """Pair what has a place with the original size of what it lies on."""
    for part in [part for turn in conversation.turns for part in turn.parts if isinstance(part, Placed)]:
        try:
            size = size_under(part, sizes)
        except ValueError as error:
            raise RecordError(conversation.source, str(error)) from error
        yield part, size.original


def _is_finite(placed: Placed, size: Size) -> bool:
    """Tell whether all corners are numbers that can be computed with; Python's whole numbers may be larger."""
    try:
        return all(abs(value) < _FARTHEST for value in placed.in_pixels(*size))
    except OverflowError:
        return False


def _meets(placed: Placed, size: Size) -> bool:
    """Tell whether something lies on an image, if only in part."""
    inside = clamped(placed, size)
    if isinstance(placed, Point):
        return all(
            abs(before - after) <= _POINT_REACH * side
            for before, after, side in zip(placed.in_pixels(*size), inside, size, strict=True)
        )
    if isinstance(placed, Quad) and not goes_round(inside):
        return False
    return all(_extent(inside[axis::2]) > 0 for axis in (0, 1))


def _sticks_out(placed: Placed, size: Size) -> bool:
    """Tell whether clamping changes something by more than rounding."""
    return any(_is_cut(placed.in_pixels(*size)[axis::2], clamped(placed, size)[axis::2], size[axis]) for axis in (0, 1))


def _is_cut(before: Sequence[float], after: Sequence[float], side: int) -> bool:
    """Tell whether corners move along a side by more than rounding; all corners of a point are one."""
    moved = max(abs(old - new) for old, new in zip(before, after, strict=True))
    rounding = max(1.0, _ROUNDING * side)
    return moved > (min(rounding, _LARGEST_LOSS * _extent(before)) if len(before) > 1 else rounding)


def _extent(values: Sequence[float]) -> float:
    return max(values) - min(values)


def _problem(placed: Placed, size: Size, conversation: Conversation) -> str:
    numbers = ", ".join(str(number) for number in placed.numbers)
    width, height = size
    where = "its video" if placed.video is not None else f"its image {shown(conversation.images[placed.image].path)}"
    return (
        f"{placed.kind} [{numbers}] in {placed.unit}s lies outside {where} of {width} x {height} pixels"
        f"{_cause(placed, size, conversation)}"
    )


def _cause(placed: Placed, size: Size, conversation: Conversation) -> str:
    """Guess what happened, and say what to do."""
    if placed.unit != "pixel":
        return "; expected the unit that `bbox_type` names"
    fits_turned = _meets(placed, size[::-1]) and not _sticks_out(placed, size[::-1])
    if placed.video is None and fits_turned and _is_on_its_side(conversation, placed, size):
        return ", which its EXIF orientation turns: labelled on the unrotated image? Expected pixels of the upright one"
    if any(number > size[place % 2] for place, number in enumerate(placed.numbers)):
        return (
            ": labelled on the image before it was resized? Expected pixels of the file as it is, or `bbox_type` with "
            "another unit"
        )
    return "; expected pixels from the upper left corner"


def _is_on_its_side(conversation: Conversation, placed: Placed, size: Size) -> bool:
    width, height = size
    # Whatever the limit of this run is, the image was within it when its size was read.
    opening = ImageOpening(pixel_limit=max(MAX_PIXELS, width * height))
    return lies_on_its_side(conversation.images[placed.image].path, opening)
