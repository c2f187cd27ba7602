"""From a video to the patches of Qwen2-VL's vision tower.

Source: Wang et al., "Qwen2-VL", 2024, arXiv:2409.12191, section 2.1; the exact rules are those of the published
preprocessor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from typing import Any

import numpy as np

from paddlemix.conversation import VideoSettings
from paddlemix.media.frames import VideoError, VideoInfo, frame_bounds, frame_count, frame_indices, frame_range
from paddlemix.models.qwen2_vl.images import MIN_PIXELS, PUBLISHED_MAX_PIXELS, Qwen2VLImageProcessor, smart_resize
from paddlemix.models.qwen2_vl.own_settings import BOUNDS, bounds_beside, given_values
from paddlemix.ops.images import patchify, resize_bicubic
from paddlemix.processors.preprocessor import CLIP_MEAN, CLIP_STD, known_settings, pixel_bounds

FPS = 2.0
MIN_FRAMES, MAX_FRAMES = 4, 768
MIN_FRAME_PIXELS, MAX_FRAME_PIXELS = 128 * 28 * 28, 768 * 28 * 28
TOTAL_PIXELS = 24576 * 28 * 28
_SHARE_OF_CONTEXT = 0.9  # of `max_video_tokens`, which a video may take in transformers 5
OF_ONE_VIDEO = ("start", "end", "resized_height", "resized_width")


@dataclass(frozen=True)
class VideoPlan:
    """What a video will be shown as.

    Attributes:
        indices: the frames that are shown.
        width: pixels of a resized frame.
        height: pixels of a resized frame.
        grid: patches in time, height and width.
        seconds: that one patch in time lasts.
        notes: what was asked for and could not be had: the setting's name, and a sentence that goes on from the
            video's name.
    """

    indices: tuple[int, ...]
    width: int
    height: int
    grid: tuple[int, int, int]
    seconds: float
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Qwen2VLVideoProcessor:
    """Chooses, resizes, normalises and cuts frames.

    Attributes:
        nframes: how many frames to take, all where the video has fewer; None lets `fps` decide.
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
        start: seconds at which the stretch that is shown begins; of one video, as are those that follow.
        end: seconds at which it ends.
        resized_height: frames are resized as if they had this height and `resized_width`, whatever the bounds of areas.
        resized_width: pixels, set together with `resized_height`.
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
    start: float | None = None
    end: float | None = None
    resized_height: int | None = None
    resized_width: int | None = None

    def __post_init__(self) -> None:
        for low, high in BOUNDS:
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
    def from_published(cls, values: Mapping[str, Any]) -> Qwen2VLVideoProcessor:
        """Take the settings of a checkpoint, see `stored_settings`.

        Bounds that transformers copied from the published image settings are ignored: the published models saw
        videos within the bounds that are the defaults here.
        """
        published = {**values, **pixel_bounds(values)}
        published["nframes"] = values.get("num_frames")
        if (published["min_pixels"], published["max_pixels"]) == (MIN_PIXELS, PUBLISHED_MAX_PIXELS):
            published["min_pixels"] = published["max_pixels"] = None
        if values.get("cap_pixels_per_frame") and values.get("max_video_tokens") and not values.get("total_pixels"):
            area = (values.get("patch_size", cls.patch_size) * values.get("merge_size", cls.merge_size)) ** 2
            published["total_pixels"] = int(values["max_video_tokens"] * area * _SHARE_OF_CONTEXT)
        return cls(**known_settings(published, {field.name for field in fields(cls)}.difference(OF_ONE_VIDEO)))

    def to_published(self) -> dict[str, Any]:
        """Return the video_preprocessor_config.json of these settings."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        for name in OF_ONE_VIDEO:
            del values[name]
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
            ValueError: both bounds are given and cross, or a value makes no sense.
        """
        given = given_values(settings)
        if settings.nframes is None and settings.fps is not None:
            given["nframes"] = None
        return replace(self, **given, **bounds_beside(given, self))

    def plan(self, info: VideoInfo) -> VideoPlan:
        """Decide what will be shown, before a frame is decoded.

        Args:
            info: of the video.

        Returns:
            Frames, their size, and the grid.

        Raises:
            VideoError: the video tells no frame rate that `fps`, `start` or `end` could go by, has fewer than two
                frames between these, or frames of several sizes that would not be resized to one.
        """
        stretch = self._stretch(info)
        total = len(stretch)
        count = total if info.is_sampled else self._count(total, info.rate)
        steps = math.ceil(count / self.temporal_patch_size)
        width, height = self._one_size(info, steps * self.temporal_patch_size)
        return VideoPlan(
            indices=tuple(frame_indices(total, count, stretch.start).tolist()),
            width=width,
            height=height,
            grid=(steps, height // self.patch_size, width // self.patch_size),
            seconds=self.temporal_patch_size / self._sampled_rate(info, count / total),
            notes=() if info.is_sampled else tuple(self._notes(info, total)),
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

    def _stretch(self, info: VideoInfo) -> range:
        """Tell the places of the frames from `start` to `end`."""
        if info.is_sampled and (self.start, self.end) != (None, None):
            raise VideoError("is given by its frames, all of which are shown; leave out `start` and `end`.")
        return frame_range(info.frames, info.rate, start=self.start, end=self.end)

    def _count(self, total: int, rate: float | None) -> int:
        return frame_count(
            total,
            rate,
            nframes=self.nframes,
            fps=self.fps,
            min_frames=self.min_frames,
            max_frames=self.max_frames,
            multiple=self.temporal_patch_size,
        )

    def _sampled_rate(self, info: VideoInfo, share: float) -> float:
        """Tell how many frames a second are shown, if this share is; `fps` where the video tells no rate of its own."""
        return self.fps if info.is_sampled or not info.rate else share * info.rate

    def _notes(self, info: VideoInfo, total: int) -> Iterator[tuple[str, str]]:
        """Tell what was asked for and could not be had of a video of whose frames `total` could be shown."""
        name, least = ("min_frames", self.min_frames) if self.nframes is None else ("nframes", self.nframes)
        if total < least:
            yield name, f"has {total} frames to take from, fewer than `{name}` {least}; all are taken, an even number."
        if self.end is not None and info.rate and self.end > info.frames / info.rate:
            seconds = info.frames / info.rate
            yield "end", f"lasts {seconds:.2f} s, but its `end` is {self.end:g} s; it is shown to its own end."

    def _one_size(self, info: VideoInfo, count: int) -> tuple[int, int]:
        """Decide the width and height in pixels of the frames, whatever their own sizes, of which `count` are shown."""
        size = self._resized(info.width, info.height, count)
        for (width, height), name in info.other_sizes.items():
            if self._resized(width, height, count) != size:
                raise VideoError(
                    f"has frames of several sizes: the first is {info.width} x {info.height}, {name} is {width} x "
                    f"{height}. Make them one size, or set `resized_width` and `resized_height`."
                )
        return size

    def _resized(self, width: int, height: int, count: int) -> tuple[int, int]:
        """Decide the width and height in pixels that a frame of this size is resized to, if `count` are shown."""
        if self.resized_width and self.resized_height:
            # As those of an image, which know no budget of all frames together.
            width, height, low, high = self.resized_width, self.resized_height, MIN_PIXELS, float(PUBLISHED_MAX_PIXELS)
        else:
            low, high = frame_bounds(
                count,
                min_pixels=self.min_pixels,
                max_pixels=self.max_pixels,
                total_pixels=self.total_pixels,
                multiple=self.temporal_patch_size,
            )
        factor = self.patch_size * self.merge_size
        new_height, new_width = smart_resize(height, width, factor=factor, min_pixels=low, max_pixels=high)
        return new_width, new_height

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
