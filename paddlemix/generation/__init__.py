"""Answers from a model: the cache, the choice of tokens, the loop, the text."""

from paddlemix.generation.ids import generate_ids, settled_config
from paddlemix.generation.loop import TokenStream, generate
from paddlemix.generation.settings import GenerationConfig
from paddlemix.generation.text import AnswerText, stream_text

__all__ = ["AnswerText", "GenerationConfig", "TokenStream", "generate", "generate_ids", "settled_config", "stream_text"]
