"""Qwen2.5-VL. Classes are loaded when they are asked for: a processor needs no Paddle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paddlemix.lazy import lazy_attributes

if TYPE_CHECKING:
    from paddlemix.models.qwen2_5_vl.config import Qwen25VLConfig, Qwen25VLVisionConfig
    from paddlemix.models.qwen2_5_vl.modeling import Qwen2_5_VLForConditionalGeneration

__all__ = ["Qwen2_5_VLForConditionalGeneration", "Qwen25VLConfig", "Qwen25VLVisionConfig"]

__getattr__ = lazy_attributes(
    __name__,
    {
        "Qwen25VLConfig": "paddlemix.models.qwen2_5_vl.config",
        "Qwen25VLVisionConfig": "paddlemix.models.qwen2_5_vl.config",
        "Qwen2_5_VLForConditionalGeneration": "paddlemix.models.qwen2_5_vl.modeling",
    },
)
