"""Conversations, images and texts -> what a model takes; imported when asked for, since a processor loads much."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paddlemix.lazy import lazy_attributes

if TYPE_CHECKING:
    from paddlemix.contract import Processor
    from paddlemix.models.qwen2_5_vl.processing import Qwen25VLProcessor
    from paddlemix.models.qwen2_vl.processing import Qwen2VLProcessor
    from paddlemix.models.qwen2_vl.tokenizer import Qwen2Tokenizer
    from paddlemix.models.qwen_vl.processing import QwenVLProcessor
    from paddlemix.models.qwen_vl.tokenizer import QwenTokenizer

    # Here mypy holds every family to the contract.
    _HELD_TO_THE_CONTRACT: tuple[type[Processor], ...] = (Qwen2VLProcessor, Qwen25VLProcessor, QwenVLProcessor)

__all__ = ["Qwen2Tokenizer", "Qwen2VLProcessor", "Qwen25VLProcessor", "QwenTokenizer", "QwenVLProcessor"]

__getattr__ = lazy_attributes(
    __name__,
    {
        "Qwen2Tokenizer": "paddlemix.models.qwen2_vl.tokenizer",
        "Qwen2VLProcessor": "paddlemix.models.qwen2_vl.processing",
        "Qwen25VLProcessor": "paddlemix.models.qwen2_5_vl.processing",
        "QwenTokenizer": "paddlemix.models.qwen_vl.tokenizer",
        "QwenVLProcessor": "paddlemix.models.qwen_vl.processing",
    },
)
