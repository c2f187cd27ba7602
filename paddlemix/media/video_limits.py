"""What every decoder of videos holds to."""

from __future__ import annotations

from paddlemix.media.frames import VideoError
from paddlemix.media.guard.containers import MOST_PIXELS
from paddlemix.media.images import size_problem

# Frames that a header may count beyond those that decode: an unfinished last group is common.
SPARE_FRAMES = 2


def check_size(width: int, height: int) -> None:
    """Refuse, before a frame is decoded, what would take too much memory or cannot be shown.

    Args:
        width: pixels, as the header has it.
        height: pixels.

    Raises:
        VideoError: the frame is too large or too narrow; the message goes on from the video's name.
    """
    if problem := size_problem(width, height) or size_problem(width, height, MOST_PIXELS):
        raise VideoError(problem)
