"""From an image to the pixels of Qwen-VL's vision tower: every image is stretched to one square."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from paddlemix.models.config_file import read_section
from paddlemix.names import PREPROCESSOR_FILE
from paddlemix.ops.images import patchify, resize_bicubic
from paddlemix.processors.preprocessor import (
    CLIP_MEAN,
    CLIP_STD,
    known_settings,
    stored_settings,
    write_settings,
)
from paddlemix.processors.sources import ProcessorSources


@dataclass(frozen=True)
class QwenVLImageProcessor:
    """Stretches and normalises images.

    Attributes:
        image_size: pixels of the square's side.
        image_mean: per channel, of values in 0..1.
        image_std: per channel.
    """

    image_size: int = 448
    image_mean: tuple[float, float, float] = CLIP_MEAN
    image_std: tuple[float, float, float] = CLIP_STD

    @classmethod
    def from_pretrained(cls, sources: ProcessorSources) -> QwenVLImageProcessor:
        """Read the settings of a checkpoint.

        Args:
            sources: the checkpoint's folders. Published ones say the size in config.json, `visual.image_size`, and
                nothing else; a preprocessor_config.json takes precedence.

        Returns:
            The processor.
        """
        visual = read_section(sources.model, "visual")
        values = {"image_size": visual.get("image_size"), **stored_settings(sources.media, PREPROCESSOR_FILE).values}
        return cls(**known_settings(values, (field.name for field in fields(cls))))

    def save_pretrained(self, folder: Path) -> None:
        """Write preprocessor_config.json."""
        write_settings(
            folder,
            PREPROCESSOR_FILE,
            {"image_processor_type": "QwenVLImageProcessor", "processor_class": "QwenVLProcessor", **asdict(self)},
        )

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Stretch and normalise an image.

        Args:
            image: in RGB.

        Returns:
            float32[3, S, S].
        """
        square = resize_bicubic(np.asarray(image), self.image_size, self.image_size)
        levels = _levels(self.image_mean, self.image_std)
        # One patch covers the square.
        return patchify([square], levels, patch_size=self.image_size, merge_size=1).reshape(3, *square.shape[:2])


@lru_cache(maxsize=16)
def _levels(image_mean: tuple[float, ...], image_std: tuple[float, ...]) -> np.ndarray:
    """Return float32[3, 256]: what the grey levels of each channel become, worked out in the original's order."""
    mean, std = np.array([image_mean, image_std], dtype=np.float32)[..., None]
    return (np.arange(256, dtype=np.float32) / np.float32(255) - mean) / std
