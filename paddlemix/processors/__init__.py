"""Conversations, pictures and texts -> what a model takes; imported when asked for, since a processor loads much."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paddlemix.processors.qwen2_vl import Qwen2VLProcessor
    from paddlemix.processors.qwen_tokenizer import QwenTokenizer
    from paddlemix.processors.qwen_vl import QwenVLProcessor

__all__ = ["Qwen2VLProcessor", "QwenTokenizer", "QwenVLProcessor"]

_MODULES = {"Qwen2VLProcessor": "qwen2_vl", "QwenTokenizer": "qwen_tokenizer", "QwenVLProcessor": "qwen_vl"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
