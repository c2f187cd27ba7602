"""Writing answers token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from paddlemix.contract import Model
from paddlemix.generation.beams import IsOver, search_beams
from paddlemix.generation.reading import Batch, CachedReader
from paddlemix.generation.samplers import Sampler, sampler_for
from paddlemix.generation.sampling import TokenChooser
from paddlemix.generation.settings import GenerationConfig


class TokenStream:
    """The answers to a batch, token by token; a step of the model runs when its tokens are asked for.

    Iterating gives (row, token), the tokens of one step in the order of their rows, without end tokens. Where beams are
    searched nothing is certain before all is: the answers come at the end, row by row.

    Args:
        model: in evaluation mode; its `config.num_hidden_layers` says how many caches it wants.
        batch: input_ids int64[B, L]; attention_mask int64[B, L], padding on the left; images as the model takes them.
        config: how to choose, and when to stop; its `stop_strings` are left to those who read the tokens.
        end_token_ids: the tokenizer's own, which end an answer where the config names no others.
        is_over: ends an answer behind its last token too; None for end tokens alone.

    Attributes:
        end_tokens: by row, the end token that its answer closed with; rows that are open or were cut off have none.

    Raises:
        ValueError: a row is padded on the right, or stop words are given and no end token is known.
    """

    end_tokens: dict[int, int]

    def __init__(
        self,
        model: Model,
        batch: Batch,
        config: GenerationConfig,
        *,
        end_token_ids: Sequence[int],
        is_over: IsOver | None = None,
    ) -> None:
        self._config, self._is_over = config, is_over
        self._end_token_ids = config.end_token_ids(end_token_ids)
        self._stop_end = config.stop_words_end(end_token_ids)
        self._reader = CachedReader(model, batch, config.max_new_tokens)
        self._is_open = np.ones(len(self._reader.prompts), dtype=bool)
        self.end_tokens = {}
        self._steps = self._chosen() if config.num_beams == 1 else self._searched()
        self._tokens = self._without_ends()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return self._tokens

    def steps(self) -> Iterator[dict[int, int]]:
        """Give what iterating gives in other pieces.

        Returns:
            By row, the tokens of each step of the model, end tokens too; rows that have ended have none.
        """
        return self._steps

    def end(self, row: int) -> None:
        """Ask for no further token of a row; once all have ended nothing runs any more."""
        self._is_open[row] = False

    def _without_ends(self) -> Iterator[tuple[int, int]]:
        for said in self._steps:
            yield from ((row, token) for row, token in said.items() if row not in self.end_tokens)

    def _chosen(self) -> Iterator[dict[int, int]]:
        choosers = [TokenChooser(prompt, self._config, self._end_token_ids) for prompt in self._reader.prompts]
        sampler: Sampler | None = None
        for _ in range(self._config.max_new_tokens):
            said: dict[int, int] = {}
            for row in self._open_rows():
                if choosers[row].has_met_stop_words:
                    assert self._stop_end is not None, "checked when it was looked for"
                    said[row] = self._close(row, self._stop_end)
            if rows := self._open_rows():
                logits = self._reader.read_prompts() if sampler is None else self._reader.read(sampler.tokens)
                sampler = sampler or sampler_for(logits, choosers, self._config, self._end_token_ids)
                said |= sampler.choose(logits, rows)
            for row in rows:
                if said[row] in self._end_token_ids:
                    self._close(row, said[row])
                elif self._is_over is not None and self._is_over(choosers[row].prompt, choosers[row].answer):
                    self.end(row)
            yield said
            if not self._open_rows():
                return

    def _searched(self) -> Iterator[dict[int, int]]:
        answers = search_beams(self._reader, self._config, self._end_token_ids, self._stop_end, self._is_over)
        for row, answer in enumerate(answers):
            for token in answer.tokens:
                if self._is_open[row]:
                    yield {row: token}
            if self._is_open[row] and answer.end is not None:
                yield {row: self._close(row, answer.end)}
            self.end(row)

    def _open_rows(self) -> list[int]:
        return np.flatnonzero(self._is_open).tolist()

    def _close(self, row: int, end: int) -> int:
        """End a row with an end token, and return it."""
        self.end_tokens[row] = end
        self.end(row)
        return end


def generate(
    model: Model,
    batch: Batch,
    config: GenerationConfig,
    *,
    end_token_ids: Sequence[int],
    on_token: Callable[[int, int], bool | None] | None = None,
) -> list[list[int]]:
    """Continue each row of a batch until an end token.

    Args:
        model: as `TokenStream` takes it.
        batch: as `TokenStream` takes it.
        config: how to choose, and when to stop.
        end_token_ids: the tokenizer's own, which end an answer where the config names no others.
        on_token: called with the row and each new token; true ends the row behind that token.

    Returns:
        The new tokens of each row, without its end token.

    Raises:
        ValueError: a row is padded on the right, or the config holds stop strings and nothing reads the tokens.
    """
    if config.stop_strings and on_token is None:
        raise ValueError(
            f"`stop_strings` are {list(config.stop_strings)}, but `generate` sees tokens only: use `stream_text`, or "
            "find them in `on_token`."
        )
    stream = TokenStream(model, batch, config, end_token_ids=end_token_ids)
    answers: list[list[int]] = [[] for _ in batch["input_ids"]]
    for row, token in stream:
        answers[row].append(token)
        if on_token is not None and on_token(row, token):
            stream.end(row)
    return answers
