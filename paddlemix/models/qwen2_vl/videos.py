"""From a video to the patches of Qwen2-VL's vision tower.

Source: Wang et al., "Qwen2-VL", 2024, arXiv:2409.12191, section 2.1; the exact rules are those of the published
preprocessor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from typing import Any

import numpy as np

from paddlemix.conversation import VideoSettings
from paddlemix.media.frames import VideoInfo, frame_bounds, frame_count, frame_indices
from paddlemix.models.qwen2_vl.images import MIN_PIXELS, PUBLISHED_MAX_PIXELS, Qwen2VLImageProcessor, smart_resize
from paddlemix.ops.images import patchify, resize_bicubic
from paddlemix.processors.preprocessor import CLIP_MEAN, CLIP_STD, known_settings

FPS = 2.0
MIN_FRAMES, MAX_FRAMES = 4, 768
MIN_FRAME_PIXELS, MAX_FRAME_PIXELS = 128 * 28 * 28, 768 * 28 * 28
TOTAL_PIXELS = 24576 * 28 * 28


@dataclass(frozen=True)
class VideoPlan:
    """What a video will be shown as.

    Attributes:
        indices: the frames that are shown.
        width: pixels of a resized frame.
        height: pixels of a resized frame.
        grid: patches in time, height and width.
        seconds: that one patch in time lasts.
    """

    indices: tuple[int, ...]
    width: int
    height: int
    grid: tuple[int, int, int]
    seconds: float


@dataclass(frozen=True)
class Qwen2VLVideoProcessor:
    """Chooses, resizes, normalises and cuts frames.

    Attributes:
        nframes: how many frames to take; None lets `fps` decide.
        fps: frames to take a second.
        min_frames: at least so many, where `fps` decides and the video has them.
        max_frames: at most so many, where `fps` decides.
        min_pixels: smallest area of a resized frame.
        max_pixels: largest area of a resized frame.
        total_pixels: largest area of all frames together, the frames of one patch counting as one.
        patch_size: pixels of a patch's side.
        merge_size: patches of a merged token's side.
        temporal_patch_size: frames a patch spans; the last frame is repeated until they fill one.
        image_mean: per channel, of values in 0..1.
        image_std: per channel.
    """

    nframes: int | None = None
    fps: float = FPS
    min_frames: int = MIN_FRAMES
    max_frames: int = MAX_FRAMES
    min_pixels: int = MIN_FRAME_PIXELS
    max_pixels: int = MAX_FRAME_PIXELS
    total_pixels: int = TOTAL_PIXELS
    patch_size: int = 14
    merge_size: int = 2
    temporal_patch_size: int = 2
    image_mean: tuple[float, ...] = CLIP_MEAN
    image_std: tuple[float, ...] = CLIP_STD

    def __post_init__(self) -> None:
        for low, high in (("min_frames", "max_frames"), ("min_pixels", "max_pixels")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(
                    f"a video's `{low}` is {getattr(self, low)}, more than `{high}`, which is {getattr(self, high)}. "
                    "Lower one or raise the other."
                )

    @classmethod
    def beside(cls, image_processor: Qwen2VLImageProcessor) -> Qwen2VLVideoProcessor:
        """Make the processor of a checkpoint that says nothing of videos: patches as those of its images."""
        shared = ("patch_size", "merge_size", "temporal_patch_size", "image_mean", "image_std")
        return cls(**{name: getattr(image_processor, name) for name in shared})

    @classmethod
    def from_published(cls, values: dict[str, Any]) -> Qwen2VLVideoProcessor:
        """Take the settings of a video_preprocessor_config.json.

        Bounds that transformers copied from the published image settings are ignored: the published models saw
        videos within the bounds that are the defaults here.
        """
        size = values.get("size") or {}
        published = {"min_pixels": size.get("shortest_edge"), "max_pixels": size.get("longest_edge")}
        published.update((name, value) for name, value in values.items() if value is not None)
        published["nframes"] = values.get("num_frames")
        if (published["min_pixels"], published["max_pixels"]) == (MIN_PIXELS, PUBLISHED_MAX_PIXELS):
            published["min_pixels"] = published["max_pixels"] = None
        return cls(**known_settings(published, (field.name for field in fields(cls))))

    def to_published(self) -> dict[str, Any]:
        """Return the video_preprocessor_config.json of these settings."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        # transformers knows it by this name, and refuses both ways of choosing frames at once.
        count = values.pop("nframes")
        if count is not None:
            del values["fps"]
            values["num_frames"] = count
        return {"video_processor_type": "Qwen2VLVideoProcessor", "processor_class": "Qwen2VLProcessor", **values}

    def with_settings(self, settings: VideoSettings) -> Qwen2VLVideoProcessor:
        """Make the same processor with what a user asks for in place of its own settings.

        Where one of two bounds is given and crosses the other, the other moves along.

        Args:
            settings: None in it keeps the processor's value.

        Returns:
            A processor.

        Raises:
            ValueError: both bounds are given and cross.
        """
        given: dict[str, Any] = {name: value for name, value in asdict(settings).items() if value is not None}
        if settings.nframes is None and settings.fps is not None:
            given["nframes"] = None
        for low, high in (("min_frames", "max_frames"), ("min_pixels", "max_pixels")):
            if low in given:
                given.setdefault(high, max(getattr(self, high), given[low]))
            elif high in given:
                given[low] = min(getattr(self, low), given[high])
        return replace(self, **given)

    def plan(self, info: VideoInfo) -> VideoPlan:
        """Decide what will be shown, before a frame is decoded.

        Args:
            info: of the video.

        Returns:
            Frames, their size, and the grid.

        Raises:
            VideoError: the video has fewer frames than `nframes`, or tells no frame rate that `fps` could go by.
        """
        count = info.frames if info.is_sampled else self._count(info)
        steps = math.ceil(count / self.temporal_patch_size)
        width, height = self._resized(info, steps * self.temporal_patch_size)
        return VideoPlan(
            indices=tuple(range(count) if info.is_sampled else frame_indices(info.frames, count).tolist()),
            width=width,
            height=height,
            grid=(steps, height // self.patch_size, width // self.patch_size),
            seconds=self.temporal_patch_size / self._sampled_rate(info, count),
        )

    def tokens(self, grid: tuple[int, int, int]) -> int:
        """Count the tokens of the language model that a grid of patches becomes."""
        return math.prod(grid) // self.merge_size**2

    def patches(self, frames: Iterable[np.ndarray], plan: VideoPlan) -> np.ndarray:
        """Cut up a video.

        Args:
            frames: uint8[H, W, 3] in RGB, those that `plan` names; each is resized before the next is drawn, with the
                precision of PyTorch, by which the published models were shown videos.
            plan: what `plan` gave for the video.

        Returns:
            float32[t * h * w, channels * temporal_patch_size * patch_size**2], in merge-window order.
        """
        steps, height, width = plan.grid
        span, levels = self.temporal_patch_size, self._levels()
        patches = np.empty((steps, height * width, 3 * span * self.patch_size**2), dtype=np.float32)
        resized = (resize_bicubic(frame, plan.width, plan.height, precision="torch") for frame in frames)
        shown = self._filled_up(resized, steps * span)
        for step in patches:
            spanned = list(islice(shown, span))
            patchify(spanned, levels, patch_size=self.patch_size, merge_size=self.merge_size, out=step)
        return patches.reshape(steps * height * width, -1)

    def _count(self, info: VideoInfo) -> int:
        return frame_count(
            info.frames,
            info.rate,
            nframes=self.nframes,
            fps=self.fps,
            min_frames=self.min_frames,
            max_frames=self.max_frames,
            multiple=self.temporal_patch_size,
        )

    def _sampled_rate(self, info: VideoInfo, count: int) -> float:
        """Tell how many frames a second are shown, if `count` are; `fps` where the video tells no rate of its own."""
        return self.fps if info.is_sampled or not info.rate else count / info.frames * info.rate

    def _resized(self, info: VideoInfo, count: int) -> tuple[int, int]:
        """Decide the width and height in pixels of the frames, of which `count` are shown."""
        low, high = frame_bounds(
            count,
            min_pixels=self.min_pixels,
            max_pixels=self.max_pixels,
            total_pixels=self.total_pixels,
            multiple=self.temporal_patch_size,
        )
        factor = self.patch_size * self.merge_size
        height, width = smart_resize(info.height, info.width, factor=factor, min_pixels=low, max_pixels=high)
        return width, height

    def _levels(self) -> np.ndarray:
        """Return float32[3, 256]: what the grey levels become, in the reference's order; it is not that for images."""
        mean, std = np.array([self.image_mean, self.image_std], dtype=np.float32)[..., None] * np.float32(255)
        return (np.arange(256, dtype=np.float32) - mean) / std

    @staticmethod
    def _filled_up(frames: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
        """Repeat the last of the frames, uint8[H, W, 3] each, until there are `count`."""
        drawn, frame = 0, None
        for frame in frames:
            drawn += 1
            yield frame
        assert frame is not None, "a plan has at least one frame"
        for _ in range(count - drawn):
            yield frame
