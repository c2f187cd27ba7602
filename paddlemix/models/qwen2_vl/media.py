"""The images and videos that a conversation shows: their sizes from headers, and their patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import PIL.Image

from paddlemix.contract import Size
from paddlemix.conversation import Conversation, Video
from paddlemix.media.images import image_size
from paddlemix.media.opening import DEFAULT_OPENING, ImageOpening
from paddlemix.media.records import naming_the_record, open_images
from paddlemix.media.video import open_video
from paddlemix.models.qwen2_vl.images import Qwen2VLImageProcessor
from paddlemix.models.qwen2_vl.videos import Qwen2VLVideoProcessor

Grid = tuple[int, int, int]


class Shown(NamedTuple):
    """What an image or video comes to.

    Attributes:
        grid: patches in time, height and width.
        seconds: that one patch in time lasts; 0 of an image, which has one.
    """

    grid: Grid
    seconds: float = 0.0


@dataclass(frozen=True)
class MediaSizes:
    """What the images and videos of a conversation come to, in the order in which it shows them.

    Attributes:
        images: width and height in pixels of each original image.
        stills: what each image comes to.
        clips: what each video comes to.
    """

    images: list[Size]
    stills: list[Shown]
    clips: list[Shown]


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
        opening: how images are opened, and the images that are frames.
    """

    def __init__(
        self,
        image_processor: Qwen2VLImageProcessor,
        video_processor: Qwen2VLVideoProcessor,
        opening: ImageOpening = DEFAULT_OPENING,
    ) -> None:
        self._image_processor = image_processor
        self._video_processor = video_processor
        self._opening = opening
        self._image_size: Callable[[str], Size] = partial(image_size, opening=opening)

    def remembering_sizes(self) -> MediaReader:
        """Make a reader like this one that looks at the header of each image once, however many records show it."""
        reader = MediaReader(self._image_processor, self._video_processor, self._opening)
        reader._image_size = lru_cache(maxsize=None)(self._image_size)
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
            clips = [self._clip(video) for video in conversation.videos]
        return self._sizes(images, clips)

    def read(self, conversation: Conversation) -> Media:
        """Decode and cut up everything.

        Args:
            conversation: names the files.

        Returns:
            Sizes, grids and patches.

        Raises:
            RecordError: an image or video cannot be used.
        """
        images = open_images(conversation, self._opening)
        with naming_the_record(conversation):
            return self.cut(images, conversation.videos)

    def cut(self, images: Sequence[PIL.Image.Image], clips: Sequence[Video]) -> Media:
        """Cut up open images, and decode and cut up videos.

        Args:
            images: in RGB.
            clips: name the files.

        Returns:
            Sizes, grids and patches.

        Raises:
            VideoError: a video cannot be used.
        """
        videos = [self._read_video(video) for video in clips]
        return Media(
            self._sizes([image.size for image in images], [shown for shown, _ in videos]),
            image_patches=[self._image_processor.patches(image) for image in images],
            video_patches=[patches for _, patches in videos],
        )

    def _read_video(self, video: Video) -> tuple[Shown, np.ndarray]:
        """Decode and cut up one video: what it comes to, and its patches float32[t * h * w, values]."""
        processor = self._video_processor.with_settings(video.settings)
        with open_video(video.path, self._opening) as opened:
            plan = processor.plan(opened.info)
            return Shown(plan.grid, plan.seconds), processor.patches(opened.read(plan.indices), plan)

    def _sizes(self, images: list[Size], clips: list[Shown]) -> MediaSizes:
        return MediaSizes(images, [Shown(self._image_processor.grid(*size)) for size in images], clips)

    def _clip(self, video: Video) -> Shown:
        processor = self._video_processor.with_settings(video.settings)
        with open_video(video.path, self._opening) as opened:
            plan = processor.plan(opened.info)
        return Shown(plan.grid, plan.seconds)
