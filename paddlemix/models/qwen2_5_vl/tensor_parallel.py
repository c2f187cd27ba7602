"""How a Qwen2.5-VL is split over ranks that compute every layer together."""

from __future__ import annotations

from paddlemix.models.qwen2_5_vl.config import Qwen25VLConfig
from paddlemix.models.qwen2_vl.tensor_parallel import plan_with_mlp
from paddlemix.models.tensor_parallel import SplitPlan


def split_plan(config: Qwen25VLConfig) -> SplitPlan:
    """Split everything but the norms and the patch embedding."""
    inner = ("gate_proj", "up_proj")
    return plan_with_mlp(config, inner=inner, outer="down_proj", inner_key="vision_config.intermediate_size")
