"""What a conversation shows, opened; whatever cannot be used is named together with its record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from paddlemix.contract import Size
from paddlemix.conversation import Conversation, RecordError
from paddlemix.media.frames import VideoError
from paddlemix.media.images import image_size, open_image
from paddlemix.media.opening import DEFAULT_OPENING, ImageError, ImageOpening

_ROOT_KEY = " Relative paths start at the `image_root` of the set, or else at the folder of its file."


@contextmanager
def naming_the_record(conversation: Conversation) -> Iterator[None]:
    """Raise what cannot be read inside as a RecordError of the conversation's record."""
    try:
        yield
    except (ImageError, VideoError) as error:
        raise RecordError(conversation.source, f"{error}{_ROOT_KEY if _is_missing(error) else ''}") from error


def _is_missing(error: BaseException) -> bool:
    """Tell whether a file that does not exist is behind an error; a video's may have a frame's behind it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return isinstance(error, FileNotFoundError)


def image_sizes(conversation: Conversation, opening: ImageOpening = DEFAULT_OPENING) -> list[Size]:
    """Read the headers of a conversation's images.

    Args:
        conversation: names the files.
        opening: how they are opened.

    Returns:
        The size of each image, upright.

    Raises:
        RecordError: an image cannot be opened.
    """
    with naming_the_record(conversation):
        return [image_size(image.path, opening) for image in conversation.images]


def open_images(conversation: Conversation, opening: ImageOpening = DEFAULT_OPENING) -> list[Image.Image]:
    """Decode a conversation's images.

    Args:
        conversation: names the files.
        opening: how they are opened.

    Returns:
        The images in RGB, upright.

    Raises:
        RecordError: an image cannot be used.
    """
    with naming_the_record(conversation):
        return [open_image(image.path, opening) for image in conversation.images]
