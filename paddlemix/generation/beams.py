"""Beam search: several beginnings of an answer are carried on side by side, and the likeliest whole one is given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from paddlemix.generation.reading import CachedReader
from paddlemix.generation.sampling import check_numbers, ends_with_any, penalize_repetition, without_tokens
from paddlemix.generation.settings import GenerationConfig

IsOver = Callable[[Sequence[int], Sequence[int]], bool]
"""Tells of the tokens of a prompt and of an answer so far whether the answer ends with the last of them."""


@dataclass(frozen=True)
class Beam:
    """The beginning of an answer, or a whole one.

    Attributes:
        tokens: so far, without the end token.
        score: the sum of the tokens' log probabilities, the end token's included.
        end: the end token of a whole one; None where it is open, was cut off or ended otherwise.
    """

    tokens: tuple[int, ...] = ()
    score: float = 0.0
    end: int | None = None


class BeamSearch:
    """The search for one answer. As in transformers, a score is divided by its length to the power `length_penalty`.

    Args:
        prompt: int64[L], without padding.
        config: `num_beams`, `length_penalty`, `early_stopping`, and what else changes scores.
        end_token_ids: what ends an answer.
        stop_end: the end token behind stop words; None where there are none.
        is_over: ends an answer behind its last token too; None for end tokens alone.
    """

    def __init__(
        self,
        prompt: np.ndarray,
        config: GenerationConfig,
        end_token_ids: Collection[int],
        stop_end: int | None,
        is_over: IsOver | None = None,
    ) -> None:
        self._prompt, self._config = prompt, config
        self._is_over, self._prompt_ids = is_over, prompt.tolist()
        self._ends, self._stop_end = sorted(end_token_ids), stop_end
        self._whole: list[tuple[float, Beam]] = []  # the best answers, with their scores by length
        self.open = [Beam()]
        self.is_done = False

    def advance(self, logits: np.ndarray) -> list[int]:
        """Carry every open beam on by a token.

        Args:
            logits: float32[N, V] of the N open beams.

        Returns:
            For each beam that is open now, which of the N it grew from.

        Raises:
            ValueError: a logit is NaN.
        """
        length = len(self.open[0].tokens) + 1
        scores = np.stack([self._scores(row, beam) for row, beam in zip(logits, self.open, strict=True)])
        # Enough that `num_beams` of them go on, whichever of the others are end tokens.
        candidates = _best_places(scores, max(2, 1 + len(self._ends)) * self._config.num_beams)
        parents = self._grow(scores, candidates)
        best = self.open[0].score if self.open else -np.inf
        self.is_done = not self.open or self._is_decided(float(best), length)
        return parents

    def answer(self) -> Beam:
        """Give the best answer; where the search was cut off, what is open counts as whole."""
        for beam in () if self.is_done else self.open:
            self._add_whole(beam, len(beam.tokens))
        return max(self._whole, key=lambda scored: scored[0])[1]

    def _scores(self, logits: np.ndarray, beam: Beam) -> np.ndarray:
        """Score a beam with each token behind it, float64[V], from its logits float32[V]."""
        check_numbers(logits)
        tokens = np.append(self._prompt, beam.tokens).astype(np.int64)
        if ends_with_any(tokens.tolist(), self._config.stop_words_ids):
            return np.where(np.arange(len(logits)) == self._stop_end, beam.score, -np.inf)
        shifted = logits.astype(np.float64) - logits.max()
        log_probabilities = shifted - np.log(np.exp(shifted).sum())
        changed = penalize_repetition(log_probabilities, np.unique(tokens), self._config.repetition_penalty)
        is_too_short = len(beam.tokens) < self._config.min_new_tokens
        return beam.score + (without_tokens(changed, self._ends) if is_too_short else changed)

    def _grow(self, scores: np.ndarray, candidates: list[tuple[int, int]]) -> list[int]:
        """Take the best candidates: those that have ended are whole, the others are open from now on.

        Args:
            scores: float64[N, V] of the beams that were open.
            candidates: row and column of the largest of them, largest first.

        Returns:
            For each beam that is open now, which of the N it grew from.
        """
        parents, grown, width = [], [], self._config.num_beams
        for rank, (parent, token) in enumerate(candidates):
            tokens, score = self.open[parent].tokens, float(scores[parent, token])
            is_end = token in self._ends
            beam = Beam(tokens, score, end=token) if is_end else Beam((*tokens, token), score)
            if not is_end and not self._ends_otherwise(beam):
                parents.append(parent)
                grown.append(beam)
            elif rank < width:
                self._add_whole(beam, len(tokens) + 1)
            if len(grown) == width:
                break
        self.open = grown
        return parents

    def _ends_otherwise(self, beam: Beam) -> bool:
        return self._is_over is not None and self._is_over(self._prompt_ids, beam.tokens)

    def _add_whole(self, beam: Beam, length: int) -> None:
        self._whole.append((beam.score / length**self._config.length_penalty, beam))
        self._whole.sort(key=lambda scored: -scored[0])
        del self._whole[self._config.num_beams :]

    def _is_decided(self, best: float, length: int) -> bool:
        """Tell whether the search ends: enough is whole, and nothing that is open is expected to be better."""
        config = self._config
        if len(self._whole) < config.num_beams or config.early_stopping is True:
            return len(self._whole) == config.num_beams
        # "never" allows for the longest answer, whose score a positive penalty makes the best; else today's length.
        may_be_longest = config.early_stopping == "never" and config.length_penalty > 0
        final = config.max_new_tokens if may_be_longest else length
        return self._whole[-1][0] >= best / final**config.length_penalty


def search_beams(
    reader: CachedReader,
    config: GenerationConfig,
    end_token_ids: Collection[int],
    stop_end: int | None,
    is_over: IsOver | None = None,
) -> list[Beam]:
    """Search the best answer to each prompt.

    Args:
        reader: has read nothing yet.
        config: how to search.
        end_token_ids: what ends an answer.
        stop_end: the end token behind stop words; None where there are none.
        is_over: as `BeamSearch` takes it.

    Returns:
        By prompt.
    """
    searches = running = [BeamSearch(prompt, config, end_token_ids, stop_end, is_over) for prompt in reader.prompts]
    logits = reader.read_prompts().numpy()
    for length in range(1, config.max_new_tokens + 1):
        kept = _advance_all(running, logits)
        running = [search for search in running if not search.is_done]
        if not running or length == config.max_new_tokens:
            break
        reader.keep(np.array(kept))
        logits = reader.read(np.array([beam.tokens[-1] for search in running for beam in search.open])).numpy()
    return [search.answer() for search in searches]


def _advance_all(searches: list[BeamSearch], logits: np.ndarray) -> list[int]:
    """Advance searches whose open beams are the rows of `logits`, float32[N, V].

    Args:
        searches: none of them done.
        logits: float32[N, V].

    Returns:
        The rows, of the N, from which the beams that are open now grew.
    """
    rows, start = [], 0
    for search in searches:
        end = start + len(search.open)
        parents = search.advance(logits[start:end])
        rows += [] if search.is_done else [start + parent for parent in parents]
        start = end
    return rows


def _best_places(scores: np.ndarray, count: int) -> list[tuple[int, int]]:
    """Find row and column of the largest numbers of float64[N, V], largest first, without minus infinity."""
    flat = scores.ravel()
    count = min(count, len(flat))
    largest = np.argpartition(-flat, count - 1)[:count]
    ordered = largest[np.lexsort((largest, -flat[largest]))]
    return [divmod(int(place), scores.shape[1]) for place in ordered if flat[place] > -np.inf]
