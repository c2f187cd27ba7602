"""An answer's boxes, drawn on the image that a chat showed last."""

from __future__ import annotations

from PIL import Image

from paddlemix.media.images import open_image
from paddlemix.media.opening import ImageOpening
from paddlemix.models.qwen_vl.tags import Corners, History, boxes_with_names, to_list_format
from paddlemix.visualization.draw import LabelledBox, draw_boxes

# To draw on: a tokenizer does not know how its model was shown images, and this refuses none.
_ANY_VALUES = ImageOpening(range="min_max")


def latest_image(history: History | None) -> str | None:
    """Find the path of the image that was shown last.

    Args:
        history: queries and answers. Only queries show images: an answer is the model's, which names no file to open.

    Returns:
        Its path or address; None where none was shown.
    """
    queries = (query for query, _ in reversed(history or ()))
    shown = (part["image"] for query in queries for part in reversed(to_list_format(query)) if "image" in part)
    return next(shown, None)


def draw_on_latest_image(response: str, history: History | None = None) -> Image.Image | None:
    """Draw an answer's boxes with their names.

    Args:
        response: the answer; malformed boxes in it are ignored.
        history: queries and answers, with that of `response` or without.

    Returns:
        The image with all boxes, a colour for each name; None where the answer has no box or no image was shown.

    Raises:
        ImageError: the image cannot be read.
    """
    path, found = latest_image(history), boxes_with_names(response)
    if path is None or not found:
        return None
    image = open_image(path, _ANY_VALUES)
    return draw_boxes(image, [labelled(one.get("ref", ""), one["box"], image.size) for one in found])


def labelled(name: str, corners: Corners, size: tuple[int, int]) -> LabelledBox:
    """Convert a box to pixels, its corners in order.

    Args:
        name: its label.
        corners: x1, y1, x2, y2 in thousandths; a model may swap them.
        size: width and height of the image in pixels.

    Returns:
        The box to draw.
    """
    width, height = size
    (x1, x2), (y1, y2) = sorted(corners[::2]), sorted(corners[1::2])
    return LabelledBox(name, (x1 / 1000 * width, y1 / 1000 * height, x2 / 1000 * width, y2 / 1000 * height))
