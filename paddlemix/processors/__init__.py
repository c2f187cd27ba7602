"""Conversations, pictures and texts -> what a model takes; imported when asked for, since a processor loads much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paddlemix.processors.qwen2_vl import Qwen2VLProcessor

__all__ = ["Qwen2VLProcessor"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from paddlemix.processors.qwen2_vl import Qwen2VLProcessor

    return Qwen2VLProcessor
