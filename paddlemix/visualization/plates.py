"""Where to put the plates that carry the labels of boxes.

Rectangles are (left, top, right, bottom) in whole pixels, right and bottom exclusive.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from paddlemix.contract import Size

Rectangle = tuple[int, int, int, int]


def place_plates(sizes: Sequence[Size], boxes: Sequence[Rectangle], image: Size) -> list[Rectangle]:
    """Find a place for the plate of every box.

    A plate lies inside the image. It overlaps as little as possible with the plates before it; then it is as near as
    possible to its own box; then it covers as little as possible of all boxes; then it stands above or below its
    box rather than beside it.

    Args:
        sizes: width and height of each plate; one larger than the image starts at its left or top edge.
        boxes: the boxes they belong to, inside the image.
        image: its width and height.

    Returns:
        One rectangle per plate.
    """
    placed: list[Rectangle] = []
    for size, box in zip(sizes, boxes, strict=True):

        def cost(plate: Rectangle, box: Rectangle = box) -> tuple[int, int, int]:
            return _overlap(plate, placed), _gap(plate, box), _overlap(plate, boxes)

        placed.append(min(_candidates(size, box, image), key=cost))
    return placed


def _candidates(size: Size, box: Rectangle, image: Size) -> Iterator[Rectangle]:
    """Try places around and inside the corners of the box, then all the way down the image at its sides."""
    width, height = size
    left, top, right, bottom = box
    for x in (left, right - width, right, left - width):
        for y in (top - height, bottom, top, bottom - height, *range(0, image[1], height)):
            yield _inside(x, y, size, image)


def _inside(x: int, y: int, size: Size, image: Size) -> Rectangle:
    x = max(0, min(x, image[0] - size[0]))
    y = max(0, min(y, image[1] - size[1]))
    return x, y, x + size[0], y + size[1]


def _overlap(plate: Rectangle, others: Sequence[Rectangle]) -> int:
    """Sum up the pixels shared with each of the others."""
    return sum(
        max(0, min(plate[2], other[2]) - max(plate[0], other[0]))
        * max(0, min(plate[3], other[3]) - max(plate[1], other[1]))
        for other in others
    )


def _gap(plate: Rectangle, box: Rectangle) -> int:
    """Count the pixels between the two, along both axes together; 0 where they touch."""
    across = max(plate[0] - box[2], box[0] - plate[2], 0)
    down = max(plate[1] - box[3], box[1] - plate[3], 0)
    return across + down
