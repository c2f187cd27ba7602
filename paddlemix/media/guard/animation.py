"""What decoding all frames of an animated image will cost."""

from __future__ import annotations

from typing import IO

from paddlemix.media.guard.gif import check_gif
from paddlemix.media.guard.png import check_png
from paddlemix.media.guard.regular import RefusedError, length_of
from paddlemix.media.guard.webp import check_webp

MOST_FRAMES = 10_000
# Of all frames together, which are decoded once to learn how long each is shown: 1,700 frames of 640 x 480.
MOST_PIXELS = 1 << 29


def check_animation(file: IO[bytes], kind: str, width: int, height: int) -> None:
    """Refuse an animated image whose frames are too many, or too many for their size.

    Args:
        file: of the image; left at its beginning.
        kind: Pillow's name of it.
        width: pixels of the image.
        height: pixels.

    Raises:
        RefusedError: it is refused; the message goes on from its name.
    """
    length = length_of(file)
    frames = 1
    if kind == "GIF":
        frames, *spanned = check_gif(file, length, every_frame=True)
        width, height = max(width, spanned[0]), max(height, spanned[1])
    elif kind == "PNG":
        frames = check_png(file, length).frames
    elif kind == "WEBP":
        frames = check_webp(file, length)[2]
    file.seek(0)
    if frames > 1 and (frames > MOST_FRAMES or frames * width * height > MOST_PIXELS):
        raise RefusedError(
            f"has {frames} frames of {width} x {height} pixels; an animated image may have {MOST_FRAMES} frames and "
            f"{MOST_PIXELS} pixels in all. Save it as a video (MP4)."
        )
