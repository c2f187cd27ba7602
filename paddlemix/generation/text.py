"""Answers as text while they are written: whole characters, cut off before a stop string."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from paddlemix.contract import Model
from paddlemix.generation.loop import TokenStream
from paddlemix.generation.reading import Batch
from paddlemix.generation.settings import GenerationConfig

# What a decoder writes for bytes that are no character, or not yet one.
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class AnswerText:
    """The text of one answer, piece by piece.

    The pieces joined are the answer, and it is the same however its text is cut into tokens: where several stop strings
    occur, the one that is complete first counts, of two that are complete at once the longer.

    Args:
        decode: a byte-level tokenizer's; bytes at the end that are not a whole character must show as one U+FFFD.
        stop_strings: the answer ends before the first of them.

    Attributes:
        has_ended: whether a stop string was found; nothing follows it.
    """

    has_ended: bool

    def __init__(self, decode: Callable[[Sequence[int]], str], stop_strings: Sequence[str] = ()) -> None:
        self._decode, self._stop_strings = decode, stop_strings
        self.has_ended = False
        self._ids: list[int] = []  # whose last character is not certain yet
        self._taken = 0  # characters of those ids that were taken already
        self._held = ""  # what may be the beginning of a stop string

    def add(self, token: int) -> str:
        """Take the next token.

        Args:
            token: its id.

        Returns:
            What is certain to follow the pieces so far; often nothing.
        """
        self._ids.append(token)
        text = self._decode(self._ids)
        # A character of several tokens is incomplete until its last one, and only the last character can be.
        certain = len(text) - text.endswith(REPLACEMENT)
        fresh = text[self._taken : certain]
        self._ids, self._taken = ([], 0) if certain == len(text) else (self._ids, certain)
        return self._release(fresh)

    def finish(self) -> str:
        """Give the rest, once no token follows; a character that was left incomplete shows as U+FFFD."""
        piece = self._release(self._decode(self._ids)[self._taken :])
        rest = "" if self.has_ended else self._held
        self._ids, self._taken, self._held = [], 0, ""
        return piece + rest

    def _release(self, fresh: str) -> str:
        """Take further text and give back what no stop string can still take away."""
        if self.has_ended:
            return ""
        text = self._held + fresh
        place = _first_stop(text, self._stop_strings)
        self.has_ended = place is not None
        kept = len(text) - _begun_stop(text, self._stop_strings) if place is None else place
        self._held = text[kept:]
        return text[:kept]


class StopStrings:
    """Finds the token with which a text has come to one of several stop strings, however it is cut into tokens.

    Args:
        decode: as `AnswerText` takes it.
        stop_strings: none empty.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop_strings: Sequence[str]) -> None:
        self._decode, self._stop_strings = decode, stop_strings
        # Every token has a byte at least, so that no stop string is spread over more of them.
        self._reach = max(len(stop.encode()) for stop in stop_strings)

    def end(self, tokens: Sequence[int]) -> bool:
        """Tell whether the last of `tokens` completes a stop string; it may go on behind it."""
        near = tokens[-self._reach :]
        before = len(self._decode(near[:-1]).rstrip(REPLACEMENT))
        text = self._decode(near)
        return any(text.find(stop, max(0, before - len(stop) + 1)) >= 0 for stop in self._stop_strings)

    def end_answer(self, prompt: Sequence[int], answer: Sequence[int]) -> bool:
        """Tell whether the last token of an answer completes a stop string that lies in the answer."""
        del prompt
        return self.end(answer)

    def end_sequence(self, prompt: Sequence[int], answer: Sequence[int]) -> bool:
        """Tell whether the last token of an answer completes a stop string, which may begin in the prompt."""
        return self.end([*prompt[-self._reach :], *answer[-self._reach :]])


def _first_stop(text: str, stop_strings: Sequence[str]) -> int | None:
    """Find where the stop string begins that is complete first."""
    places = [(place + len(stop), place) for stop in stop_strings if (place := text.find(stop)) >= 0]
    return min(places)[1] if places else None


def _begun_stop(text: str, stop_strings: Sequence[str]) -> int:
    """Count how many characters at the end of `text` may be the beginning of a stop string."""
    lengths = (length for stop in stop_strings for length in range(1, len(stop)) if text.endswith(stop[:length]))
    return max(lengths, default=0)


def stream_text(
    model: Model,
    batch: Batch,
    config: GenerationConfig,
    *,
    decode: Callable[[Sequence[int]], str],
    end_token_ids: Sequence[int],
) -> Iterator[tuple[int, str]]:
    """Write the answers to a batch as text; a step of the model runs when its pieces are asked for.

    Args:
        model: as `TokenStream` takes it.
        batch: as `TokenStream` takes it.
        config: how to choose, and when to stop.
        decode: as `AnswerText` takes it.
        end_token_ids: the tokenizer's own, which end an answer where the config names no others.

    Yields:
        A row and a piece of its answer, never empty and never half a character.
    """
    # Beams are compared as they end; token by token a row is ended below.
    stops = StopStrings(decode, config.stop_strings) if config.stop_strings and config.num_beams > 1 else None
    is_over = None if stops is None else stops.end_answer
    stream = TokenStream(model, batch, config, end_token_ids=end_token_ids, is_over=is_over)
    texts = [AnswerText(decode, config.stop_strings) for _ in batch["input_ids"]]
    for row, token in stream:
        if piece := texts[row].add(token):
            yield row, piece
        if texts[row].has_ended:
            stream.end(row)
    for row, text in enumerate(texts):
        if rest := text.finish():
            yield row, rest
