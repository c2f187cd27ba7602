"""From an image to the patches of Qwen2-VL's vision tower.

Source: Wang et al., "Qwen2-VL", 2024, arXiv:2409.12191, section 2.1; the exact rule is that of the published
preprocessor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from paddlemix.conversation import ImageSettings
from paddlemix.models.qwen2_vl.own_settings import bounds_beside, given_values
from paddlemix.ops.images import patchify, resize_bicubic
from paddlemix.processors.preprocessor import CLIP_MEAN, CLIP_STD, known_settings, pixel_bounds

MIN_PIXELS = 56 * 56
# The published checkpoints' 12845056 is 16384 tokens for one large photograph: more than most records' max_length and
# most cards' memory. This is 1280 tokens; `max_pixels` raises it.
MAX_PIXELS = 1280 * 28 * 28
PUBLISHED_MAX_PIXELS = 12845056


def smart_resize(height: int, width: int, *, factor: int, min_pixels: int, max_pixels: float) -> tuple[int, int]:
    """Decide the size an image is resized to: multiples of `factor`, the area within bounds, the aspect about kept.

    Args:
        height: pixels.
        width: pixels.
        factor: pixels of a merged token's side.
        min_pixels: smallest area.
        max_pixels: largest area.

    Returns:
        Height and width in pixels.
    """
    # A side below half a factor rounds to 0 here, which sends its image to the last case.
    new_height, new_width = (round(side / factor) * factor for side in (height, width))
    if new_height * new_width > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        return tuple(max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width))  # type: ignore[return-value]
    if new_height * new_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        return tuple(math.ceil(side * grow / factor) * factor for side in (height, width))  # type: ignore[return-value]
    return new_height, new_width


@dataclass(frozen=True)
class Qwen2VLImageProcessor:
    """Resizes, normalises and cuts images.

    Attributes:
        min_pixels: smallest area after resizing.
        max_pixels: largest area after resizing.
        patch_size: pixels of a patch's side.
        merge_size: patches of a merged token's side.
        temporal_patch_size: frames a patch spans; a still image is repeated.
        image_mean: per channel, of values in 0..1.
        image_std: per channel.
        resized_height: every image is resized as if it had this height and `resized_width`; None keeps its own.
        resized_width: pixels, set together with `resized_height`.
    """

    min_pixels: int = MIN_PIXELS
    max_pixels: int = MAX_PIXELS
    patch_size: int = 14
    merge_size: int = 2
    temporal_patch_size: int = 2
    image_mean: tuple[float, ...] = CLIP_MEAN
    image_std: tuple[float, ...] = CLIP_STD
    resized_height: int | None = None
    resized_width: int | None = None

    def __post_init__(self) -> None:
        if self.min_pixels > self.max_pixels:
            raise ValueError(
                f"`min_pixels` (MIN_PIXELS) is {self.min_pixels}, more than `max_pixels` (MAX_PIXELS), which is "
                f"{self.max_pixels}. Lower one or raise the other."
            )
        if (self.resized_height is None) != (self.resized_width is None):
            raise ValueError(
                f"`resized_height` (RESIZED_HEIGHT) is {self.resized_height} and `resized_width` (RESIZED_WIDTH) is "
                f"{self.resized_width}; set both or none."
            )

    @classmethod
    def from_published(cls, values: Mapping[str, Any], **overrides: int) -> Qwen2VLImageProcessor:
        """Take the settings of a checkpoint, see `stored_settings`; `overrides` take precedence.

        A `max_pixels` that is the published checkpoints' becomes MAX_PIXELS; one that was chosen stays.
        """
        published = {**values, **pixel_bounds(values)}
        if published["max_pixels"] == PUBLISHED_MAX_PIXELS:
            published["max_pixels"] = MAX_PIXELS
        known = known_settings(published, (field.name for field in fields(cls)))
        return cls(**{**known, **overrides})

    def to_published(self) -> dict[str, Any]:
        """Return the preprocessor_config.json of these settings."""
        return {
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2VLProcessor",
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
            "merge_size": self.merge_size,
            "min_pixels": self.min_pixels,
            "max_pixels": self.max_pixels,
            "patch_size": self.patch_size,
            "temporal_patch_size": self.temporal_patch_size,
            **(
                {"resized_height": self.resized_height, "resized_width": self.resized_width}
                if self.resized_height
                else {}
            ),
        }

    def with_settings(self, settings: ImageSettings) -> Qwen2VLImageProcessor:
        """Make the same processor with what a record asks of one image in place of its own settings.

        Where one of two bounds is given and crosses the other, the other moves along. A size that is given is held to
        the published bounds alone, as qwen-vl-utils does.

        Args:
            settings: None in it keeps the processor's value.

        Returns:
            A processor.

        Raises:
            ValueError: both bounds are given and cross, or a value makes no sense.
        """
        if settings == ImageSettings():
            return self
        given = given_values(settings)
        processor = replace(self, **given, **bounds_beside(given, self))
        if "resized_height" not in given:
            return processor
        return replace(processor, min_pixels=MIN_PIXELS, max_pixels=PUBLISHED_MAX_PIXELS)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Decide the width and height in pixels that an image of this size is resized to."""
        width, height = self.resized_width or width, self.resized_height or height
        new_height, new_width = smart_resize(
            height,
            width,
            factor=self.patch_size * self.merge_size,
            min_pixels=self.min_pixels,
            max_pixels=self.max_pixels,
        )
        return new_width, new_height

    def grid(self, width: int, height: int) -> tuple[int, int, int]:
        """Count patches in time, height and width of a still image of this size in pixels."""
        return self.grid_of_resized(*self.resized(width, height))

    def grid_of_resized(self, width: int, height: int) -> tuple[int, int, int]:
        """Count patches in time, height and width of a still image resized to this size in pixels."""
        return 1, height // self.patch_size, width // self.patch_size

    def tokens(self, grid: tuple[int, int, int]) -> int:
        """Count the tokens of the language model that a grid of patches becomes."""
        return math.prod(grid) // self.merge_size**2

    def patches(self, image: Image.Image) -> np.ndarray:
        """Cut up an image.

        Args:
            image: in RGB.

        Returns:
            float32[h * w, channels * temporal_patch_size * patch_size**2], in merge-window order.
        """
        resized = resize_bicubic(np.asarray(image), *self.resized(*image.size))
        levels = _levels(self.image_mean, self.image_std)
        frames = [resized] * self.temporal_patch_size
        return patchify(frames, levels, patch_size=self.patch_size, merge_size=self.merge_size)


@lru_cache(maxsize=16)
def _levels(image_mean: tuple[float, ...], image_std: tuple[float, ...]) -> np.ndarray:
    """Return float32[3, 256]: what the grey levels of each channel become, worked out in the reference's order."""
    scaled = (np.arange(256) * (1 / 255)).astype(np.float32)
    mean, std = np.array([image_mean, image_std], dtype=np.float32)[..., None]
    return (scaled - mean) / std
