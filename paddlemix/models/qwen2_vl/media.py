"""The pictures and videos that a conversation shows: their sizes from headers, and their patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from paddlemix.conversation import Conversation, RecordError, Video
from paddlemix.media.frames import VideoError
from paddlemix.media.images import PictureError, open_picture, picture_size
from paddlemix.media.video import open_video
from paddlemix.models.qwen2_vl.images import Qwen2VLImageProcessor
from paddlemix.models.qwen2_vl.videos import Qwen2VLVideoProcessor

Size = tuple[int, int]
Grid = tuple[int, int, int]


@dataclass(frozen=True)
class MediaSizes:
    """What the pictures and videos of a conversation come to, in the order in which it shows them.

    Attributes:
        pictures: width and height in pixels of each original picture.
        image_grids: patches in time, height and width of each picture.
        video_grids: the same of each video.
    """

    pictures: list[Size]
    image_grids: list[Grid]
    video_grids: list[Grid]


@dataclass(frozen=True)
class Media:
    """The pictures and videos of a conversation, cut up.

    Attributes:
        sizes: what they come to.
        image_patches: float32[h * w, values] of each picture.
        video_patches: float32[t * h * w, values] of each video.
    """

    sizes: MediaSizes
    image_patches: list[np.ndarray]
    video_patches: list[np.ndarray]


class MediaReader:
    """Reads what conversations show.

    Args:
        images: how pictures are resized and cut.
        videos: how videos are; a video's own settings go before it.
    """

    def __init__(self, images: Qwen2VLImageProcessor, videos: Qwen2VLVideoProcessor) -> None:
        self._images = images
        self._videos = videos
        self._picture_size: Callable[[str], Size] = picture_size

    def remembering_sizes(self) -> MediaReader:
        """A reader like this one that looks at the header of each picture once, however many records show it."""
        reader = MediaReader(self._images, self._videos)
        reader._picture_size = lru_cache(maxsize=None)(picture_size)
        return reader

    def measure(self, conversation: Conversation) -> MediaSizes:
        """Read headers, and the first frame of each video.

        Args:
            conversation: names the files.

        Returns:
            Sizes and grids.

        Raises:
            RecordError: a picture or video cannot be used, as far as that tells.
        """
        with naming_the_record(conversation):
            pictures = [self._picture_size(picture.path) for picture in conversation.pictures]
            video_grids = [self._video_grid(video) for video in conversation.videos]
        return self._sizes(pictures, video_grids)

    def read(self, conversation: Conversation) -> Media:
        """Decode and cut up everything.

        Args:
            conversation: names the files.

        Returns:
            Sizes, grids and patches.

        Raises:
            RecordError: a picture or video cannot be used.
        """
        with naming_the_record(conversation):
            pictures = [open_picture(picture.path) for picture in conversation.pictures]
            videos = [self.read_video(video) for video in conversation.videos]
        return Media(
            self._sizes([picture.size for picture in pictures], [grid for grid, _ in videos]),
            image_patches=[self._images.patches(picture) for picture in pictures],
            video_patches=[patches for _, patches in videos],
        )

    def read_video(self, video: Video) -> tuple[Grid, np.ndarray]:
        """Decode and cut up one video.

        Args:
            video: names the file.

        Returns:
            Its grid, and its patches float32[t * h * w, values].

        Raises:
            VideoError: it cannot be used.
        """
        processor = self._videos.with_settings(video.settings)
        with open_video(video.path) as opened:
            plan = processor.plan(opened.info)
            return plan.grid, processor.patches(opened.read(plan.indices), plan)

    def picture_sizes(self, conversation: Conversation) -> list[Size]:
        """Width and height in pixels of each picture, upright.

        Args:
            conversation: names the files.

        Returns:
            The sizes.

        Raises:
            RecordError: a picture cannot be opened.
        """
        with naming_the_record(conversation):
            return [picture_size(picture.path) for picture in conversation.pictures]

    def _sizes(self, pictures: list[Size], video_grids: list[Grid]) -> MediaSizes:
        return MediaSizes(pictures, [self._images.grid(*size) for size in pictures], video_grids)

    def _video_grid(self, video: Video) -> Grid:
        processor = self._videos.with_settings(video.settings)
        with open_video(video.path) as opened:
            return processor.plan(opened.info).grid


@contextmanager
def naming_the_record(conversation: Conversation) -> Iterator[None]:
    """Raise what cannot be read inside as a RecordError of the conversation's record."""
    try:
        yield
    except (PictureError, VideoError) as error:
        raise RecordError(conversation.source, str(error)) from error
