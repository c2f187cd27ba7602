"""The images and videos that a conversation shows: their sizes from headers, and their patches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import PIL.Image

from paddlemix.contract import Size
from paddlemix.conversation import Conversation, Image, ImageSettings, Video
from paddlemix.media.data_url import shown
from paddlemix.media.frames import VideoError, VideoInfo
from paddlemix.media.images import image_size
from paddlemix.media.opening import DEFAULT_OPENING, ImageError, ImageOpening
from paddlemix.media.records import naming_the_record, open_images
from paddlemix.media.video import name_of, open_video
from paddlemix.models.qwen2_vl.images import Qwen2VLImageProcessor
from paddlemix.models.qwen2_vl.videos import Qwen2VLVideoProcessor, VideoPlan

logger = logging.getLogger(__name__)

# The settings of videos that could not be kept to, each of which one warning tells.
_warned_of: set[str] = set()
Grid = tuple[int, int, int]
_NOTHING_ASKED = ImageSettings()


class Shown(NamedTuple):
    """What an image or video comes to.

    Attributes:
        grid: patches in time, height and width.
        size: width and height in pixels of the original image, or of an original frame, the first of a list.
        seen: the same of what the model sees.
        seconds: that one patch in time lasts; 0 of an image, which has one.
    """

    grid: Grid
    size: Size
    seen: Size
    seconds: float = 0.0


Check = Callable[[Sequence[Shown]], None]
"""Refuses by an error what images and videos come to, before they are cut up."""


@dataclass(frozen=True)
class MediaSizes:
    """What the images and videos of a conversation come to, in the order in which it shows them.

    Attributes:
        stills: what each image comes to.
        clips: what each video comes to.
    """

    stills: list[Shown]
    clips: list[Shown]

    @property
    def images(self) -> list[Size]:
        """Width and height in pixels of each original image."""
        return [still.size for still in self.stills]


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
        self._shown_still: Callable[[Size], Shown] = partial(_shown_still, image_processor)

    def remembering_sizes(self) -> MediaReader:
        """Make a reader like this one that looks at the header of each image once, however many records show it."""
        reader = MediaReader(self._image_processor, self._video_processor, self._opening)
        reader._image_size = lru_cache(maxsize=None)(self._image_size)
        reader._shown_still = lru_cache(maxsize=None)(self._shown_still)
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
            stills = [self._still(image, self._image_size(image.path)) for image in conversation.images]
            return MediaSizes(stills, [self._clip(video) for video in conversation.videos])

    def read(self, conversation: Conversation, check: Check | None = None) -> Media:
        """Decode and cut up everything.

        Args:
            conversation: names the files.
            check: is given what images come to before they are cut up, and all that came before and a video before
                that is decoded; refuses by an error. None takes all.

        Returns:
            Sizes, grids and patches.

        Raises:
            RecordError: an image or video cannot be used.
        """
        images = open_images(conversation, self._opening)
        with naming_the_record(conversation):
            return self.cut(list(zip(conversation.images, images, strict=True)), conversation.videos, check)

    def cut(
        self, images: Sequence[tuple[Image, PIL.Image.Image]], clips: Sequence[Video], check: Check | None = None
    ) -> Media:
        """Cut up open images, and decode and cut up videos.

        Args:
            images: what is asked of each, and what was opened, in RGB.
            clips: name the files.
            check: see `read`; None takes all.

        Returns:
            Sizes, grids and patches.

        Raises:
            ImageError: an image cannot be shown as it is asked.
            VideoError: a video cannot be used.
        """
        stills = [self._still(image, opened.size) for image, opened in images]
        check = check or _take
        check(stills)
        videos: list[tuple[Shown, np.ndarray]] = []
        for video in clips:
            videos.append(
                self._read_video(video, partial(_check_another, check, [*stills, *(one for one, _ in videos)]))
            )
        return Media(
            MediaSizes(stills, [clip for clip, _ in videos]),
            image_patches=[self._processor_of(image).patches(opened) for image, opened in images],
            video_patches=[patches for _, patches in videos],
        )

    def _still(self, image: Image, size: Size) -> Shown:
        if image.settings == _NOTHING_ASKED:
            return self._shown_still(size)
        return _shown_still(self._processor_of(image), size)

    def _processor_of(self, image: Image) -> Qwen2VLImageProcessor:
        """Make the processor of one image."""
        try:
            return self._image_processor.with_settings(image.settings)
        except ValueError as error:
            raise ImageError(f"image {shown(image.path)} cannot be shown as asked: {error}") from error

    def _clip(self, video: Video) -> Shown:
        with open_video(video.path, self._opening) as opened:
            return _shown(self._plan(video, opened.info)[1], opened.info)

    def _read_video(self, video: Video, check: Callable[[Shown], None]) -> tuple[Shown, np.ndarray]:
        """Decode and cut up one video: what it comes to, and its patches float32[t * h * w, values]."""
        with open_video(video.path, self._opening) as opened:
            processor, plan = self._plan(video, opened.info)
            check(_shown(plan, opened.info))
            return _shown(plan, opened.info), processor.patches(opened.read(plan.indices), plan)

    def _plan(self, video: Video, info: VideoInfo) -> tuple[Qwen2VLVideoProcessor, VideoPlan]:
        """Make the processor of one video, and decide what it will be shown as."""
        try:
            processor = self._video_processor.with_settings(video.settings)
        except ValueError as error:
            raise VideoError(f"cannot be shown as asked: {error}") from error
        plan = processor.plan(info)
        for setting, note in plan.notes:
            _warn_once(setting, video, note)
        return processor, plan


def _shown_still(processor: Qwen2VLImageProcessor, size: Size) -> Shown:
    """Tell what an image of a size comes to."""
    seen = processor.resized(*size)
    return Shown(processor.grid_of_resized(*seen), size, seen)


def _take(shown: Sequence[Shown]) -> None:
    """Refuse nothing."""
    del shown


def _check_another(check: Check, before: Sequence[Shown], another: Shown) -> None:
    check([*before, another])


def _shown(plan: VideoPlan, info: VideoInfo) -> Shown:
    return Shown(plan.grid, (info.width, info.height), (plan.width, plan.height), plan.seconds)


def _warn_once(setting: str, video: Video, note: str) -> None:
    """Warn of the first video of a run for which a setting asks too much; others are passed over."""
    if setting not in _warned_of:
        _warned_of.add(setting)
        logger.warning("%s %s Other videos like it are not named.", name_of(video.path), note)
