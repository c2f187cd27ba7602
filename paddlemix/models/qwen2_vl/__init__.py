"""Qwen2-VL."""

from paddlemix.models.qwen2_vl.config import Qwen2VLConfig, Qwen2VLVisionConfig
from paddlemix.models.qwen2_vl.modeling import Qwen2VLForConditionalGeneration, Qwen2VLOutput

__all__ = ["Qwen2VLConfig", "Qwen2VLForConditionalGeneration", "Qwen2VLOutput", "Qwen2VLVisionConfig"]
