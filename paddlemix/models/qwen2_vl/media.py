"""The images and videos that a conversation shows: their sizes from headers, and their patches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from paddlemix.contract import Size
from paddlemix.conversation import Conversation, Video
from paddlemix.media.images import image_size
from paddlemix.media.records import naming_the_record, open_images
from paddlemix.media.video import open_video
from paddlemix.models.qwen2_vl.images import Qwen2VLImageProcessor
from paddlemix.models.qwen2_vl.videos import Qwen2VLVideoProcessor

Grid = tuple[int, int, int]


@dataclass(frozen=True)
class MediaSizes:
    """What the images and videos of a conversation come to, in the order in which it shows them.

    Attributes:
        images: width and height in pixels of each original image.
        image_grids: patches in time, height and width of each image.
        video_grids: the same of each video.
    """

    images: list[Size]
    image_grids: list[Grid]
    video_grids: list[Grid]


@dataclass(frozen=True)
class Media:
    """The images and videos of a conversation, cut up.

    Attributes:
        sizes: what they come to.
        image_patches: float32[h * w, values] of each image.
        video_patches: float32[t * h * w, values] of each video.
    """

    sizes: MediaSizes
    image_patches: list[np.ndarray]
    video_patches: list[np.ndarray]


class MediaReader:
    """Reads what conversations show.

    Args:
        image_processor: how images are resized and cut.
        video_processor: how videos are; a video's own settings take precedence.
    """

    def __init__(self, image_processor: Qwen2VLImageProcessor, video_processor: Qwen2VLVideoProcessor) -> None:
        self._image_processor = image_processor
        self._video_processor = video_processor
        self._image_size: Callable[[str], Size] = image_size

    def remembering_sizes(self) -> MediaReader:
        """Make a reader like this one that looks at the header of each image once, however many records show it."""
        reader = MediaReader(self._image_processor, self._video_processor)
        reader._image_size = lru_cache(maxsize=None)(image_size)
        return reader

    def measure(self, conversation: Conversation) -> MediaSizes:
        """Read headers, and the first frame of each video.

        Args:
            conversation: names the files.

        Returns:
            Sizes and grids.

        Raises:
            RecordError: an image or video cannot be used, as far as that tells.
        """
        with naming_the_record(conversation):
            images = [self._image_size(image.path) for image in conversation.images]
            video_grids = [self._video_grid(video) for video in conversation.videos]
        return self._sizes(images, video_grids)

    def read(self, conversation: Conversation) -> Media:
        """Decode and cut up everything.

        Args:
            conversation: names the files.

        Returns:
            Sizes, grids and patches.

        Raises:
            RecordError: an image or video cannot be used.
        """
        images = open_images(conversation)
        with naming_the_record(conversation):
            videos = [self.read_video(video) for video in conversation.videos]
        return Media(
            self._sizes([image.size for image in images], [grid for grid, _ in videos]),
            image_patches=[self._image_processor.patches(image) for image in images],
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
        processor = self._video_processor.with_settings(video.settings)
        with open_video(video.path) as opened:
            plan = processor.plan(opened.info)
            return plan.grid, processor.patches(opened.read(plan.indices), plan)

    def _sizes(self, images: list[Size], video_grids: list[Grid]) -> MediaSizes:
        return MediaSizes(images, [self._image_processor.grid(*size) for size in images], video_grids)

    def _video_grid(self, video: Video) -> Grid:
        processor = self._video_processor.with_settings(video.settings)
        with open_video(video.path) as opened:
            return processor.plan(opened.info).grid
