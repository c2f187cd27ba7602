"""Answers from a model: the cache, the choice of tokens, the loop, the text."""

from paddlemix.generation.ids import generate_ids, greedy_config, settled_config
from paddlemix.generation.loop import TokenStream, generate
from paddlemix.generation.settings import GenerationConfig
from paddlemix.generation.streaming import TextStreamer
from paddlemix.generation.text import AnswerText, stream_text

__all__ = [
    "AnswerText",
    "GenerationConfig",
    "TextStreamer",
    "TokenStream",
    "generate",
    "generate_ids",
    "greedy_config",
    "settled_config",
    "stream_text",
]
