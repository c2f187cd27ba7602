"""Qwen-VL, the first one."""

from paddlemix.models.qwen_vl.config import QWenConfig, QWenVisionConfig
from paddlemix.models.qwen_vl.modeling import QWenLMHeadModel

__all__ = ["QWenConfig", "QWenLMHeadModel", "QWenVisionConfig"]
