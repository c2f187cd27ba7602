"""Choosing the next token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GenerationConfig:
    """How an answer is written.

    Attributes:
        max_new_tokens: where it is cut off at the latest.
        temperature: 0 takes the likeliest token each time; above 0 tokens are drawn.
        top_k: draw among so many of the likeliest; 0 for all.
        top_p: draw among the likeliest that together reach this probability.
        seed: of the drawing.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 1234

    def __post_init__(self) -> None:
        for name, is_right, expected in (
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("temperature", self.temperature >= 0, "at least 0"),
            ("top_k", self.top_k >= 0, "at least 0"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("seed", self.seed >= 0, "at least 0"),
        ):
            if not is_right:
                raise ValueError(f"`{name}` is {getattr(self, name)}; expected {expected}.")


def choose_tokens(logits: np.ndarray, config: GenerationConfig, generator: np.random.Generator) -> np.ndarray:
    """The next token of each row.

    Args:
        logits: float32[B, V].
        config: greedy or sampled.
        generator: what sampling draws from.

    Returns:
        int64[B].
    """
    if config.temperature == 0:
        return logits.argmax(-1)
    return np.array([_draw(row, config, generator) for row in logits], dtype=np.int64)


def _draw(logits: np.ndarray, config: GenerationConfig, generator: np.random.Generator) -> int:
    likeliest = np.argsort(-logits, kind="stable")[: config.top_k or None]
    # The likeliest is moved to 0 first, or a tiny temperature would divide it into infinity.
    above = logits[likeliest].astype(np.float64) - logits[likeliest[0]]
    probabilities = np.exp(above / config.temperature)
    probabilities /= probabilities.sum()
    # A token stays while those before it have not reached top_p, so the likeliest always does.
    kept = np.cumsum(probabilities) - probabilities < config.top_p
    probabilities = probabilities[kept] / probabilities[kept].sum()
    return int(generator.choice(likeliest[kept], p=probabilities))
