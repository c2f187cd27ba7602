"""Qwen2.5-VL: Qwen2-VL with attention in windows in its tower, and with seconds on the time axis of its positions.

Source: Bai et al., "Qwen2.5-VL Technical Report", 2025, arXiv:2502.13923.
"""

from __future__ import annotations

from typing import ClassVar

from paddlemix.models.qwen2_5_vl.config import Qwen25VLConfig
from paddlemix.models.qwen2_5_vl.tensor_parallel import split_plan
from paddlemix.models.qwen2_5_vl.vision import Qwen25VLVisionTower
from paddlemix.models.qwen2_vl.modeling import Qwen2VLForConditionalGeneration
from paddlemix.models.qwen2_vl.positions import TimeScale
from paddlemix.models.vision_language import Inputs

# What a checkpoint was trained with where nothing says how long a patch in time lasts.
DEFAULT_SECONDS = 1.0


class Qwen2_5_VLForConditionalGeneration(Qwen2VLForConditionalGeneration):
    """Vision tower, decoder and head, with the published checkpoints' parameter names."""

    config_class = Qwen25VLConfig
    tower_class = Qwen25VLVisionTower
    split_plan = staticmethod(split_plan)
    own_inputs: ClassVar[dict[str, str]] = {
        **Qwen2VLForConditionalGeneration.own_inputs,
        "second_per_grid_ts": "float32[videos], seconds that a patch in time of each video lasts; 1 where not given",
    }

    def video_time_scales(self, inputs: Inputs) -> list[TimeScale]:
        """Tell how time goes on from one patch of each video to the next."""
        grids = inputs.own.get("video_grid_thw")
        if grids is None:
            return []
        seconds = inputs.own.get("second_per_grid_ts")
        lasting = [DEFAULT_SECONDS] * grids.shape[0] if seconds is None else seconds.tolist()
        if len(lasting) != grids.shape[0]:
            raise ValueError(
                f"`second_per_grid_ts` has {len(lasting)} numbers, but `video_grid_thw` {grids.shape[0]} videos."
            )
        return [TimeScale(one, self.config.vision_config.tokens_per_second) for one in lasting]
