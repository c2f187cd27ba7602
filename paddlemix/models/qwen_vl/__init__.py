"""Qwen-VL, the first one. Classes are loaded when they are asked for: a processor needs no Paddle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paddlemix.lazy import lazy_attributes

if TYPE_CHECKING:
    from paddlemix.models.qwen_vl.config import QWenConfig, QWenVisionConfig
    from paddlemix.models.qwen_vl.modeling import QWenLMHeadModel

__all__ = ["QWenConfig", "QWenLMHeadModel", "QWenVisionConfig"]

__getattr__ = lazy_attributes(
    __name__,
    {
        "QWenConfig": "paddlemix.models.qwen_vl.config",
        "QWenLMHeadModel": "paddlemix.models.qwen_vl.modeling",
        "QWenVisionConfig": "paddlemix.models.qwen_vl.config",
    },
)
