"""What is told of an answer's tokens while `model.generate` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import paddle

from paddlemix.generation.text import AnswerText
from paddlemix.printable import printable


class Decoder(Protocol):
    """What turns tokens into text: a processor or a tokenizer, of transformers too."""

    @property
    def decode(self) -> Any:
        """A function of ids that gives their text."""
        ...


class Streamer(Protocol):
    """What transformers' streamers have: `TextStreamer`, `TextIteratorStreamer` and those that users write."""

    def put(self, value: paddle.Tensor) -> None:
        """Take the prompts, int64[B, L], and then the tokens of each step, int64[B], rows that have ended filled."""
        ...

    def end(self) -> None:
        """Learn that no token follows."""
        ...


class TextStreamer:
    """Prints one answer while it is written; a subclass that overrides `on_finalized_text` shows it otherwise.

    As the class of this name in transformers, but that whole characters are shown at once, not words.

    Args:
        tokenizer: the processor or its tokenizer.
        skip_prompt: whether the prompt is left out.
        **decode_kwargs: of its `decode`, such as `skip_special_tokens` of a processor.
    """

    def __init__(self, tokenizer: Decoder, skip_prompt: bool = False, **decode_kwargs: Any) -> None:
        self._decode = tokenizer.decode
        self._skip_prompt, self._decode_kwargs = skip_prompt, decode_kwargs
        self._text, self._is_prompt = AnswerText(self._text_of), True

    def put(self, value: paddle.Tensor) -> None:
        """Take tokens, int64[1, L] of the prompt or int64[1] of a step.

        Args:
            value: the tokens.

        Raises:
            ValueError: they are those of several answers.
        """
        rows = value.reshape([value.shape[0], -1]).tolist()
        if len(rows) != 1:
            raise ValueError(f"a TextStreamer got the tokens of {len(rows)} answers; it shows one: ask one question.")
        is_skipped, self._is_prompt = self._is_prompt and self._skip_prompt, False
        for token in () if is_skipped else rows[0]:
            self._show(self._text.add(token))

    def end(self) -> None:
        """Show the rest."""
        rest = self._text.finish()
        self._text, self._is_prompt = AnswerText(self._text_of), True
        self.on_finalized_text(rest, stream_end=True)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Show a piece of the text; characters that a terminal would act upon are shown by their numbers.

        Args:
            text: whole characters.
            stream_end: whether nothing follows.
        """
        print(printable(text), flush=True, end="\n" if stream_end else "")

    def _show(self, text: str) -> None:
        if text:
            self.on_finalized_text(text)

    def _text_of(self, ids: Sequence[int]) -> str:
        return str(self._decode(ids, **self._decode_kwargs))
