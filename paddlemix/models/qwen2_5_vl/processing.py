"""Qwen2.5-VL's processor: Qwen2-VL's, with seconds on the time axis and boxes in JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paddlemix.contract import Grounding, Size
from paddlemix.models.qwen2_vl.media import Media, Shown
from paddlemix.models.qwen2_vl.processing import Qwen2VLProcessor
from paddlemix.names import CONFIG_FILE
from paddlemix.processors.base import Limits
from paddlemix.processors.coordinates import SeenPixels
from paddlemix.processors.json_grounding import JsonPlaces
from paddlemix.processors.preprocessor import read_settings
from paddlemix.processors.settings import MediaSettings

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

# Of every published checkpoint; a folder's own config.json takes precedence.
TOKENS_PER_SECOND = 2


class Qwen25VLProcessor(Qwen2VLProcessor):
    """Everything between a conversation, or a rendered prompt, and the model's inputs.

    Args:
        *parts: see `Qwen2VLProcessor`.
        **limits: see `Qwen2VLProcessor`.

    Attributes:
        grounding: JSON, in pixels of the image as the model sees it: bounds of images must be the same whenever a model
            is trained and asked.
        tokens_per_second: steps of the time axis in a second.
    """

    grounding: Grounding
    tokens_per_second: float

    def __init__(self, *parts: Any, **limits: Any) -> None:
        super().__init__(*parts, **limits)
        self.grounding = JsonPlaces(SeenPixels(self._seen_size))
        self.tokens_per_second = TOKENS_PER_SECOND

    @classmethod
    def _read(cls, folder: Path, settings: MediaSettings, **limits: Unpack[Limits]) -> Self:
        processor = super()._read(folder, settings, **limits)
        vision = read_settings(folder / CONFIG_FILE).get("vision_config") or {}
        processor.tokens_per_second = vision.get("tokens_per_second", TOKENS_PER_SECOND)
        return processor

    def _seen_size(self, size: Size) -> Size:
        """Tell the size in which the model sees an image."""
        return self.image_processor.resized(*size)

    def _inputs(self, media: Media) -> dict[str, np.ndarray]:
        seconds = [clip.seconds for clip in media.sizes.clips]
        lasting = {"second_per_grid_ts": np.array(seconds, dtype=np.float32)} if seconds else {}
        return {**super()._inputs(media), **lasting}

    def _time_scales(self, shown: list[Shown]) -> list[float]:
        return [one.seconds * self.tokens_per_second for one in shown]
