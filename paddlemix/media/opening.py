"""What a user may choose about how images are opened, and the error of images that cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from paddlemix.printable import in_one_line

ImageRange = Literal["bit_depth", "min_max"]
"""What black and white of an image of more than 8 bits are: the ends of what its bits hold, or of its own values."""

MAX_PIXELS = 89_478_485  # Pillow's own bound for what may be a decompression bomb.


class ImageError(ValueError):
    """An image that cannot be used; the message names it and says what was expected."""

    def __init__(self, message: str) -> None:
        super().__init__(in_one_line(message))


@dataclass(frozen=True)
class ImageOpening:
    """How images are opened. Training and asking must share `range`, or a model sees other values than it learned.

    Attributes:
        range: of images of more than 8 bits a channel.
        pixel_limit: the largest area that is decoded, in pixels.
    """

    range: ImageRange = "bit_depth"
    pixel_limit: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.range not in get_args(ImageRange):
            raise ValueError(
                f"`image_range` (IMAGE_RANGE) is {self.range!r}; expected one of {', '.join(get_args(ImageRange))}."
            )
        if isinstance(self.pixel_limit, bool) or not isinstance(self.pixel_limit, int) or self.pixel_limit <= 0:
            raise ValueError(
                f"`image_pixel_limit` (IMAGE_PIXEL_LIMIT) is {self.pixel_limit!r}; expected a whole number above 0."
            )


DEFAULT_OPENING = ImageOpening()
