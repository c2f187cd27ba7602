"""Answers from a model: the cache, the choice of tokens, the loop."""

from paddlemix.generation.generate import generate
from paddlemix.generation.sampling import GenerationConfig

__all__ = ["GenerationConfig", "generate"]
