"""Qwen2.5-VL: Qwen2-VL with attention in windows in its tower, and with seconds on the time axis of its positions.

Source: Bai et al., "Qwen2.5-VL Technical Report", 2025, arXiv:2502.13923.
"""

from __future__ import annotations

from typing import ClassVar

from paddlemix.handover import Arrays
from paddlemix.models.qwen2_5_vl.config import Qwen25VLConfig, Qwen25VLVisionConfig
from paddlemix.models.qwen2_5_vl.tensor_parallel import split_plan
from paddlemix.models.qwen2_5_vl.vision import Qwen25VLVisionTower
from paddlemix.models.qwen2_vl.config import Qwen2VLConfig
from paddlemix.models.qwen2_vl.modeling import Qwen2VLForConditionalGeneration
from paddlemix.models.qwen2_vl.positions import TimeScale

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

    @classmethod
    def video_time_scales(cls, config: Qwen2VLConfig, batch: Arrays) -> list[TimeScale]:
        """Tell how time goes on from one patch of each video to the next."""
        if "video_grid_thw" not in batch:
            return []
        videos, vision = len(batch["video_grid_thw"]), config.vision_config
        assert isinstance(vision, Qwen25VLVisionConfig)
        seconds = batch.get("second_per_grid_ts")
        lasting = [DEFAULT_SECONDS] * videos if seconds is None else seconds.tolist()
        if len(lasting) != videos:
            raise ValueError(f"`second_per_grid_ts` has {len(lasting)} numbers, but `video_grid_thw` {videos} videos.")
        return [TimeScale(one, vision.tokens_per_second) for one in lasting]
