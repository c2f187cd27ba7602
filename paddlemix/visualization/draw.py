"""Draws boxes, points and quads with their labels on an image."""

from __future__ import annotations

import math
import warnings
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from paddlemix.contract import Size
from paddlemix.media.rgb.transparency import on_white
from paddlemix.visualization.colors import Rgb, label_colors, text_color
from paddlemix.visualization.fonts import Font, font_for
from paddlemix.visualization.plates import Rectangle, place_plates

SMALLEST_LINE, SMALLEST_FONT, SHRUNKEN_FONT = 2, 11, 8
_LINE_SHARE, _FONT_SHARE, _PADDING_SHARE = 1 / 250, 1 / 45, 1 / 5
# A point's ring, in widths of a line.
_MARKER_RADIUS = 4
_ELLIPSIS = "..."


@dataclass(frozen=True)
class LabelledBox:
    """A box and what it shows.

    Attributes:
        label: a name in any script; boxes of one label share a colour. Without one, only the box is drawn.
        box: x1, y1, x2, y2 in pixels of the image: the edges' places, so (0, 0, w, h) is all of it.
    """

    label: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class LabelledPoint:
    """A point and what it shows.

    Attributes:
        label: as that of a box.
        point: x, y in pixels of the image.
    """

    label: str
    point: tuple[float, float]


@dataclass(frozen=True)
class LabelledQuad:
    """A quad and what it shows.

    Attributes:
        label: as that of a box.
        corners: x1, y1, x2, y2, x3, y3, x4, y4 in pixels of the image.
    """

    label: str
    corners: tuple[float, ...]


Labelled = LabelledBox | LabelledPoint | LabelledQuad


@dataclass(frozen=True)
class _Caption:
    """A label in the font and length in which it fits, and the size of its plate in pixels."""

    text: str
    font: Font
    padding: int
    size: Size


def draw_boxes(image: Image.Image, boxes: Sequence[Labelled]) -> Image.Image:
    """Draw every box and quad with its label, and a dot in a ring for every point.

    Lines and letters grow with the image. Boxes are clipped to the image; one that has no area there is left out
    with a warning that names it, as a point outside and a quad outside are.

    Args:
        image: stays as it is.
        boxes: what to draw, points and quads too; later ones lie on earlier ones, and labels on all of them.

    Returns:
        A new RGB image of the same size.
    """
    canvas = on_white(image).copy()
    frames = [(item, _one_line(item.label), _frame(item, canvas.size)) for item in boxes]
    visible = [(item, label, frame) for item, label, frame in frames if frame is not None]
    colors = label_colors(label for _, label, _ in visible)
    pen = ImageDraw.Draw(canvas)
    for item, label, frame in visible:
        if isinstance(item, LabelledQuad):
            _draw_outline(pen, item, colors[label], _line_width(canvas.size))
            continue
        draw = _draw_frame if isinstance(item, LabelledBox) else _draw_marker
        draw(pen, frame, colors[label], _line_width(canvas.size))
    _draw_labels(pen, [(label, frame) for _, label, frame in visible if label], colors, canvas.size)
    return canvas


def _one_line(label: str) -> str:
    return " ".join(label.split())


def _scaled(share: float, least: int, size: Size) -> int:
    return max(least, round(share * math.sqrt(size[0] * size[1])))


def _line_width(size: Size) -> int:
    return _scaled(_LINE_SHARE, SMALLEST_LINE, size)


def _frame(item: Labelled, size: Size) -> Rectangle | None:
    """Return the pixels that a box, a point's marker or the box round a quad takes, or None with a warning."""
    if isinstance(item, LabelledPoint):
        return _marker(item, size)
    return _clip(item, item.box if isinstance(item, LabelledBox) else _box_round(item.corners), size)


def _box_round(corners: Sequence[float]) -> tuple[float, ...]:
    return min(corners[::2]), min(corners[1::2]), max(corners[::2]), max(corners[1::2])


def _marker(item: LabelledPoint, size: Size) -> Rectangle | None:
    """Return the square round a point, which may reach over the image's edge; None with a warning for one outside."""
    (x, y), (width, height) = item.point, size
    if not (0 <= x <= width and 0 <= y <= height):
        warnings.warn(
            f"point {item.point} of {item.label!r} is not drawn: it lies outside the image of {width}x{height}",
            stacklevel=4,
        )
        return None
    (left, top), radius = _start(x, y, size), _MARKER_RADIUS * _line_width(size)
    return left - radius, top - radius, left + radius + 1, top + radius + 1


def _clip(item: LabelledBox | LabelledQuad, box: Sequence[float], size: Size) -> Rectangle | None:
    """Return the pixels of a box that lie in the image, or None with a warning that names what it belongs to."""
    x1, x2 = (min(max(x, 0.0), size[0]) for x in box[::2])
    y1, y2 = (min(max(y, 0.0), size[1]) for y in box[1::2])
    # Asked this way round, NaN is refused too.
    if not (x1 < x2 and y1 < y2):
        warnings.warn(
            f"box {box} of {item.label!r} is not drawn: it has no area inside the image of {size[0]}x{size[1]}",
            stacklevel=4,
        )
        return None
    return (*_start(x1, y1, size), *_end(x1, y1, x2, y2, size))


def _start(x1: float, y1: float, size: Size) -> tuple[int, int]:
    return min(round(x1), size[0] - 1), min(round(y1), size[1] - 1)


def _end(x1: float, y1: float, x2: float, y2: float, size: Size) -> tuple[int, int]:
    """Find the right and bottom end, at least one pixel behind the start so that thin boxes show."""
    left, top = _start(x1, y1, size)
    return max(round(x2), left + 1), max(round(y2), top + 1)


def _draw_frame(pen: ImageDraw.ImageDraw, frame: Rectangle, color: Rgb, line: int) -> None:
    left, top, right, bottom = frame
    # Lines grow inwards; thicker than half the box they would grow out again.
    width = min(line, max(1, min(right - left, bottom - top) // 2))
    pen.rectangle((left, top, right - 1, bottom - 1), outline=color, width=width)


def _draw_outline(pen: ImageDraw.ImageDraw, item: LabelledQuad, color: Rgb, line: int) -> None:
    corners = list(zip(item.corners[::2], item.corners[1::2], strict=True))
    # The second corner once more joins the last side to the first.
    pen.line([*corners, *corners[:2]], fill=color, width=line, joint="curve")


def _draw_marker(pen: ImageDraw.ImageDraw, frame: Rectangle, color: Rgb, line: int) -> None:
    left, top, right, bottom = frame
    x, y = (left + right - 1) // 2, (top + bottom - 1) // 2
    pen.ellipse((left, top, right - 1, bottom - 1), outline=color, width=line)
    dot = max(1, line // 2)
    pen.ellipse((x - dot, y - dot, x + dot, y + dot), fill=color)


def _draw_labels(
    pen: ImageDraw.ImageDraw, labelled: Sequence[tuple[str, Rectangle]], colors: dict[str, Rgb], size: Size
) -> None:
    captions = [_fit(label, size) for label, _ in labelled]
    plates = place_plates([caption.size for caption in captions], [frame for _, frame in labelled], size)
    for (label, _), caption, plate in zip(labelled, captions, plates, strict=True):
        _draw_plate(pen, caption, plate, colors[label])


def _fit(label: str, size: Size) -> _Caption:
    """Set a label as large as the image asks; where it is too wide, smaller, and at last shortened."""
    room, font_size = size[0], _scaled(_FONT_SHARE, SMALLEST_FONT, size)
    caption = _set(label, font_size)
    while caption.size[0] > room and font_size > SHRUNKEN_FONT:
        font_size = max(SHRUNKEN_FONT, min(font_size - 1, font_size * room // caption.size[0]))
        caption = _set(label, font_size)
    return caption if caption.size[0] <= room else _shorten(label, font_size, room)


def _shorten(label: str, font_size: int, room: int) -> _Caption:
    """Set the longest beginning of the label that fits into `room` pixels together with an ellipsis."""

    def shortened(kept: int) -> _Caption:
        return _set(label[:kept] + _ELLIPSIS, font_size)

    fitting = bisect_right(range(len(label)), room, key=lambda kept: shortened(kept).size[0])
    return shortened(max(0, fitting - 1))


def _set(text: str, font_size: int) -> _Caption:
    font = font_for(text, font_size)
    left, top, right, bottom = font.getbbox(text)
    padding = max(1, round(_PADDING_SHARE * font_size))
    return _Caption(text, font, padding, (math.ceil(right - left) + 2 * padding, math.ceil(bottom - top) + 2 * padding))


def _draw_plate(pen: ImageDraw.ImageDraw, caption: _Caption, plate: Rectangle, color: Rgb) -> None:
    left, top, right, bottom = plate
    pen.rectangle((left, top, right - 1, bottom - 1), fill=color)
    ink_left, ink_top, _, _ = caption.font.getbbox(caption.text)
    corner = (left + caption.padding - ink_left, top + caption.padding - ink_top)
    pen.text(corner, caption.text, font=caption.font, fill=text_color(color))
