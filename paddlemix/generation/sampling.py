"""Choosing the next token of one sequence."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NoReturn
from zlib import crc32

import numpy as np

from paddlemix.generation.settings import GenerationConfig


class TokenChooser:
    """Chooses the tokens of one answer, one after the other.

    What it draws depends on the seed and the prompt alone: not on the other rows of a batch, nor on the row's place.

    Args:
        prompt: int64[L], without padding.
        config: how to choose.
        end_token_ids: not chosen among the first `min_new_tokens`.

    Attributes:
        prompt: its tokens.
    """

    prompt: list[int]

    def __init__(self, prompt: np.ndarray, config: GenerationConfig, end_token_ids: Collection[int]) -> None:
        self._config = config
        self._end_token_ids = sorted(end_token_ids)
        self._seen = np.unique(prompt)
        self.prompt = prompt.tolist()
        self._tokens = prompt.tolist()
        self._chosen = 0
        # Different prompts draw different numbers, or all records of a set would draw alike.
        self._generator = np.random.default_rng([config.seed, crc32(prompt.astype(np.int64).tobytes())])

    @property
    def answer(self) -> list[int]:
        """The tokens that were chosen."""
        return self._tokens[len(self.prompt) :]

    @property
    def has_met_stop_words(self) -> bool:
        """Whether prompt and answer so far end with stop words: nothing more is to be chosen."""
        return ends_with_any(self._tokens, self._config.stop_words_ids)

    def choose(self, logits: np.ndarray) -> int:
        """Choose the next token.

        Args:
            logits: float32[V].

        Returns:
            Its id.

        Raises:
            ValueError: a logit is NaN.
        """
        check_numbers(logits)
        scores = self.scores(logits)
        token = int(scores.argmax()) if self._config.temperature == 0 else self._draw(scores)
        self._seen = np.append(self._seen, token)
        self.take(token)
        return token

    def take(self, token: int) -> None:
        """Append a token, which was chosen elsewhere."""
        self._chosen += 1
        self._tokens.append(token)

    def draw_numbers(self, count: int) -> np.ndarray:
        """Draw the numbers from 0 to 1 that decide the next `count` tokens, float64[count], for one who chooses."""
        return self._generator.random(count)

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Change the logits, float32[V], as what stands in the sequence so far asks for."""
        scores = penalize_repetition(logits, self._seen, self._config.repetition_penalty)
        is_too_short = self._chosen < self._config.min_new_tokens
        return without_tokens(scores, self._end_token_ids) if is_too_short else scores

    def _draw(self, scores: np.ndarray) -> int:
        probabilities = token_probabilities(scores, self._config)
        possible = np.flatnonzero(probabilities)
        return int(self._generator.choice(possible, p=probabilities[possible]))


def check_numbers(logits: np.ndarray) -> None:
    """Raise a ValueError where a logit of float32[V] is NaN."""
    if np.isnan(logits).any():
        refuse_nan()


def refuse_nan() -> NoReturn:
    """Raise a ValueError for logits that are NaN."""
    raise ValueError(
        "the model's logits are NaN; expected numbers. float16 overflows in some models: load it with dtype bfloat16 "
        "or float32."
    )


def ends_with_any(tokens: list[int], endings: Sequence[Sequence[int]]) -> bool:
    """Tell whether `tokens` end with one of the sequences, none of them empty."""
    return any(tokens[-len(ending) :] == list(ending) for ending in endings)


def penalize_repetition(logits: np.ndarray, seen: np.ndarray, penalty: float) -> np.ndarray:
    """Make tokens that were seen less likely.

    Args:
        logits: float[V].
        seen: int64[N], in any order, repeated or not.
        penalty: above 1 for less likely; below 1 for more.

    Returns:
        float[V], a new array unless `penalty` is 1.

    Source: Keskar et al., "CTRL", 2019, arXiv:1909.05858, with negative logits multiplied in place of divided, as is
    usual.
    """
    if penalty == 1:
        return logits
    scores, before = logits.copy(), logits[seen]
    scores[seen] = np.where(before < 0, before * penalty, before / penalty)
    return scores


def without_tokens(logits: np.ndarray, token_ids: Collection[int]) -> np.ndarray:
    """Set the logits, float32[V], of tokens that are not to be chosen to minus infinity; ids above V name none."""
    return np.where(np.isin(np.arange(len(logits)), list(token_ids)), np.float32(-np.inf), logits)


def token_probabilities(logits: np.ndarray, config: GenerationConfig) -> np.ndarray:
    """Compute the probability with which each token is drawn: temperature, then top-k, then top-p.

    Args:
        logits: float32[V], after penalties.
        config: `temperature` above 0, `top_k`, `top_p`.

    Returns:
        float64[V], 0 for tokens that were filtered out.

    Source: top-p: Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020, arXiv:1904.09751.
    """
    lowest = np.partition(logits, -config.top_k)[-config.top_k] if 0 < config.top_k < len(logits) else -np.inf
    kept = np.flatnonzero(logits >= lowest)
    # The likeliest is moved to 0 first, or a tiny temperature would divide it into infinity.
    weights = np.exp((logits[kept] - logits.max()).astype(np.float64) / config.temperature)
    weights /= weights.sum()
    if config.top_p < 1:
        weights[_outside_top_p(weights, config.top_p)] = 0
    probabilities = np.zeros(len(logits))
    probabilities[kept] = weights / weights.sum()
    return probabilities


def _outside_top_p(probabilities: np.ndarray, top_p: float) -> np.ndarray:
    """Find the unlikeliest tokens of float64[N] that together have no more than 1 - top_p, never the likeliest."""
    # So small that all of them together fit: they need no sorting (of 150,000 tokens that takes 50 ms). The likeliest
    # is at least the mean, and so never below this.
    is_small = probabilities < (1 - top_p) / len(probabilities)
    small, large = np.flatnonzero(is_small), np.flatnonzero(~is_small)
    # Of tokens that tie the first stay, as in the greedy choice; the reference leaves it to its sort.
    ascending = large[np.argsort(-probabilities[large], kind="stable")[::-1]][:-1]
    sums = probabilities[small].sum() + np.cumsum(probabilities[ascending])
    return np.concatenate([small, ascending[sums <= 1 - top_p]])
