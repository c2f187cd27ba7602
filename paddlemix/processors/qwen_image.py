"""From a picture to the pixels of Qwen-VL's vision tower: every picture is stretched to one square."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from paddlemix.files import write_json
from paddlemix.processors.image import CLIP_MEAN, CLIP_STD

PREPROCESSOR_FILE, CONFIG_FILE = "preprocessor_config.json", "config.json"


@dataclass(frozen=True)
class QwenVLImageProcessor:
    """Stretches and normalises pictures.

    Attributes:
        image_size: pixels of the square's side.
        image_mean: per channel, of values in 0..1.
        image_std: per channel.
    """

    image_size: int = 448
    image_mean: tuple[float, float, float] = CLIP_MEAN
    image_std: tuple[float, float, float] = CLIP_STD

    @classmethod
    def from_pretrained(cls, folder: Path) -> QwenVLImageProcessor:
        """The settings of a checkpoint.

        Args:
            folder: of the checkpoint. Published ones say the size in config.json, `visual.image_size`, and nothing
                else; a preprocessor_config.json goes before it.

        Returns:
            The processor.
        """
        visual = _values(folder / CONFIG_FILE).get("visual") or {}
        values = {"image_size": visual.get("image_size"), **_values(folder / PREPROCESSOR_FILE)}
        known = {name: values.get(name) for name in ("image_size", "image_mean", "image_std")}
        return cls(**{name: _hashable(value) for name, value in known.items() if value is not None})

    def save_pretrained(self, folder: Path) -> None:
        """Write preprocessor_config.json."""
        write_json(
            folder / PREPROCESSOR_FILE,
            {"image_processor_type": "QwenVLImageProcessor", "processor_class": "QwenVLProcessor", **asdict(self)},
        )

    def pixels(self, picture: Image.Image) -> np.ndarray:
        """Stretch and normalise a picture.

        Args:
            picture: in RGB.

        Returns:
            float32[3, S, S].
        """
        square = np.asarray(picture.resize((self.image_size, self.image_size), Image.Resampling.BICUBIC))
        levels = np.arange(256, dtype=np.float32) / np.float32(255)
        channels = zip(*np.array([self.image_mean, self.image_std], dtype=np.float32), strict=True)
        # Each of the 256 levels is worked out once a channel.
        return np.stack([((levels - mean) / std)[square[..., place]] for place, (mean, std) in enumerate(channels)])


def _values(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
