"""Choosing the next token of every row of a batch, where its logits are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import numpy as np
import paddle

from paddlemix.generation.sampling import TokenChooser, refuse_nan
from paddlemix.generation.settings import GenerationConfig

# What a card gives in place of a token where a logit is NaN.
_NAN = -1


class Sampler(Protocol):
    """Chooses tokens.

    Attributes:
        tokens: int64[B], the last of each row, where the model reads them; rows that have ended have any.
    """

    tokens: np.ndarray | paddle.Tensor

    def choose(self, logits: paddle.Tensor, rows: Sequence[int]) -> dict[int, int]:
        """Choose the next token of some rows.

        Args:
            logits: float32[B, V].
            rows: that have not ended.

        Returns:
            The token of each of `rows`.

        Raises:
            ValueError: a logit of theirs is NaN.
        """
        ...


def sampler_for(
    logits: paddle.Tensor, choosers: Sequence[TokenChooser], config: GenerationConfig, end_token_ids: Collection[int]
) -> Sampler:
    """Make what chooses where the logits are.

    Args:
        logits: float32[B, V], the first.
        choosers: one a row.
        config: how to choose.
        end_token_ids: not chosen among the first `min_new_tokens`.

    Returns:
        The sampler.
    """
    if logits.place.is_cpu_place():
        return HostSampler(choosers)
    return CardSampler(choosers, config, end_token_ids, logits.shape[1])


class HostSampler:
    """Chooses row by row with numpy.

    Args:
        choosers: one a row.

    Attributes:
        tokens: as of `Sampler`.
    """

    tokens: np.ndarray

    def __init__(self, choosers: Sequence[TokenChooser]) -> None:
        self._choosers = choosers
        self.tokens = np.zeros(len(choosers), dtype=np.int64)

    def choose(self, logits: paddle.Tensor, rows: Sequence[int]) -> dict[int, int]:
        """Choose: see `Sampler`."""
        array = logits.numpy()
        for row in rows:
            self.tokens[row] = self._choosers[row].choose(array[row])
        return {row: int(self.tokens[row]) for row in rows}


class CardSampler:
    """Chooses for all rows at once with Paddle's ops, and copies the tokens alone to the host.

    It draws what `HostSampler` draws, but for roundings. The numbers that decide are drawn ahead, by the rows' own
    generators.

    Args:
        choosers: one a row.
        config: how to choose.
        end_token_ids: not chosen among the first `min_new_tokens`.
        vocabulary: of the model.

    Attributes:
        tokens: as of `Sampler`; on the card.
    """

    tokens: paddle.Tensor

    def __init__(
        self,
        choosers: Sequence[TokenChooser],
        config: GenerationConfig,
        end_token_ids: Collection[int],
        vocabulary: int,
    ) -> None:
        self._choosers, self._config, self._step = choosers, config, 0
        self._ids = paddle.arange(vocabulary)
        self._seen = self._ends = self._numbers = None
        if config.repetition_penalty != 1:
            self._seen = _marks([chooser.prompt for chooser in choosers], vocabulary)
        if config.min_new_tokens:
            self._ends = _marks([list(end_token_ids)], vocabulary)
        if config.temperature > 0:
            drawn = [chooser.draw_numbers(config.max_new_tokens) for chooser in choosers]
            self._numbers = paddle.to_tensor(np.stack(drawn, axis=1)[..., None])

    @paddle.no_grad()
    def choose(self, logits: paddle.Tensor, rows: Sequence[int]) -> dict[int, int]:
        """Choose: see `Sampler`."""
        scores = self._scores(logits)
        tokens = scores.argmax(axis=-1) if self._numbers is None else self._draw(scores, self._numbers[self._step])
        self.tokens = tokens  # the model reads them of rows that have ended too
        if self._seen is not None:
            self._seen = self._seen.logical_or(self._ids == self.tokens.unsqueeze(-1))
        self._step += 1
        told = paddle.where(logits.isnan().any(axis=-1), paddle.full_like(tokens, _NAN), tokens)
        found = told.tolist()  # the one wait of a step
        if any(found[row] == _NAN for row in rows):
            refuse_nan()
        for row in rows:
            self._choosers[row].take(found[row])
        return {row: found[row] for row in rows}

    def _scores(self, logits: paddle.Tensor) -> paddle.Tensor:
        """Change the logits, float32[B, V], as what stands in the sequences so far asks for."""
        scores, penalty = logits, self._config.repetition_penalty
        if self._seen is not None:
            changed = paddle.where(scores < 0, scores * penalty, scores / penalty)
            scores = paddle.where(self._seen, changed, scores)
        if self._ends is not None and self._step < self._config.min_new_tokens:
            scores = paddle.where(self._ends, paddle.full_like(scores, -np.inf), scores)
        return scores

    def _draw(self, scores: paddle.Tensor, numbers: paddle.Tensor) -> paddle.Tensor:
        """Draw int64[B] with numbers float64[B, 1] between 0 and 1, as numpy's `choice` does."""
        sums = self._probabilities(scores).cumsum(axis=-1)
        places = (sums <= numbers * sums[:, -1:]).astype("int64").sum(axis=-1)
        return places.clip(max=scores.shape[-1] - 1)

    def _probabilities(self, scores: paddle.Tensor) -> paddle.Tensor:
        """Compute with which probability each token is drawn, float64[B, V], as `token_probabilities` does."""
        config = self._config
        # The likeliest is moved to 0 first, or a tiny temperature would divide it into infinity.
        weights = ((scores - scores.max(axis=-1, keepdim=True)).astype("float64") / config.temperature).exp()
        if 0 < config.top_k < scores.shape[-1]:
            lowest = scores.topk(config.top_k, axis=-1)[0][:, -1:]
            weights = weights * (scores >= lowest).astype("float64")
        weights = weights / weights.sum(axis=-1, keepdim=True)
        return weights * self._inside_top_p(weights) if config.top_p < 1 else weights

    def _inside_top_p(self, probabilities: paddle.Tensor) -> paddle.Tensor:
        """Find all but the unlikeliest tokens that together have no more than 1 - top_p, float64[B, V] of 1 and 0."""
        # Of tokens that tie the first stay, as in the greedy choice.
        order = probabilities.argsort(axis=-1, descending=True, stable=True)
        ranked = probabilities.take_along_axis(order, axis=-1)
        from_here_on = ranked.flip(axis=[-1]).cumsum(axis=-1).flip(axis=[-1])
        # Never the likeliest.
        kept = (from_here_on > 1 - self._config.top_p).astype("int64").sum(axis=-1, keepdim=True).clip(min=1)
        return (order.argsort(axis=-1) < kept).astype("float64")


def _marks(tokens: Sequence[Sequence[int]], vocabulary: int) -> paddle.Tensor:
    """Mark the tokens of rows, bool[rows, V]; ids above V name none."""
    marks = np.zeros((len(tokens), vocabulary), dtype=bool)
    for row, ids in zip(marks, tokens, strict=True):
        row[[token for token in ids if token < vocabulary]] = True
    return paddle.to_tensor(marks)
