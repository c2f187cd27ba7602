"""Qwen2-VL. Classes are loaded when they are asked for: a processor needs no Paddle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paddlemix.lazy import lazy_attributes

if TYPE_CHECKING:
    from paddlemix.models.qwen2_vl.config import Qwen2VLConfig, Qwen2VLVisionConfig
    from paddlemix.models.qwen2_vl.modeling import Qwen2VLForConditionalGeneration, Qwen2VLOutput

__all__ = ["Qwen2VLConfig", "Qwen2VLForConditionalGeneration", "Qwen2VLOutput", "Qwen2VLVisionConfig"]

__getattr__ = lazy_attributes(
    __name__,
    {
        "Qwen2VLConfig": "paddlemix.models.qwen2_vl.config",
        "Qwen2VLForConditionalGeneration": "paddlemix.models.qwen2_vl.modeling",
        "Qwen2VLOutput": "paddlemix.models.qwen2_vl.modeling",
        "Qwen2VLVisionConfig": "paddlemix.models.qwen2_vl.config",
    },
)
