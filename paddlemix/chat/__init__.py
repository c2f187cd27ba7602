"""Conversations that go on: calls for one more question each, and a chat in a terminal."""

from paddlemix.lazy import lazy_attributes

__all__ = ["dialogue_with", "inference", "inference_stream"]

__getattr__ = lazy_attributes(__name__, dict.fromkeys(__all__, "paddlemix.chat.calls"))
