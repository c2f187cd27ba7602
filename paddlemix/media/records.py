"""What a conversation shows, opened; whatever cannot be used is named together with its record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from paddlemix.contract import Size
from paddlemix.conversation import Conversation, RecordError
from paddlemix.media.frames import VideoError
from paddlemix.media.images import ImageError, image_size, open_image


@contextmanager
def naming_the_record(conversation: Conversation) -> Iterator[None]:
    """Raise what cannot be read inside as a RecordError of the conversation's record."""
    try:
        yield
    except (ImageError, VideoError) as error:
        raise RecordError(conversation.source, str(error)) from error


def image_sizes(conversation: Conversation) -> list[Size]:
    """Read the headers of a conversation's images.

    Args:
        conversation: names the files.

    Returns:
        The size of each image, upright.

    Raises:
        RecordError: an image cannot be opened.
    """
    with naming_the_record(conversation):
        return [image_size(image.path) for image in conversation.images]


def open_images(conversation: Conversation) -> list[Image.Image]:
    """Decode a conversation's images.

    Args:
        conversation: names the files.

    Returns:
        The images in RGB, upright.

    Raises:
        RecordError: an image cannot be used.
    """
    with naming_the_record(conversation):
        return [open_image(image.path) for image in conversation.images]
