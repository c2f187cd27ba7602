"""How people ask a model: words, images and videos become a question, and what was said before comes with it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paddlemix.contract import Model, Processor
from paddlemix.conversation import Conversation, Image, Part, RawAnswer, RecordId, Text, Turn, Video
from paddlemix.generation.answer import stream_answer
from paddlemix.generation.settings import GenerationConfig

Asked = Text | Image | Video
"""What a question is made of."""

Query = str | Sequence[Mapping[str, Any]]
"""A question as callers write it: words, or `{"image": path}`, `{"video": path}` and `{"text": words}` in any order."""

History = list[tuple[Query, str]]
"""Queries and raw answers, the oldest first; JSON can hold it."""

# How a question introduces one of several, by which words and answers name it.
_INTRODUCED: Mapping[type, str] = {Image: "Picture", Video: "Video"}


@dataclass(frozen=True)
class Exchange:
    """A question that was answered.

    Attributes:
        question: the user's turn.
        answer: as the model wrote it, tags and all.
    """

    question: Turn
    answer: str


class Dialogue:
    """Asks a model in the neutral form, which every family reads.

    A family whose users ask in a way of their own overrides `question` and `reply`, and names its class in the
    registry.

    Args:
        model: in evaluation mode.
        processor: of the model's family.
        config: how answers are written.
        system: stands before everything; None leaves it to the checkpoint.

    Attributes:
        processor: as it was given; reads the boxes of answers.
    """

    processor: Processor

    def __init__(self, model: Model, processor: Processor, config: GenerationConfig, system: str | None = None) -> None:
        self.processor = processor
        self._model, self._config, self._system = model, config, system

    @staticmethod
    def question(parts: Sequence[Asked], before: Sequence[Turn] = ()) -> Turn:
        """Make a user's turn; no model is needed for it.

        Of several images each is numbered, and of several videos, those that were shown before included.

        Args:
            parts: words, images and videos in their order.
            before: the questions before this one.

        Returns:
            The turn, the parts in their order.

        Raises:
            ValueError: an image or a video cannot be shown to this family.
        """
        shown = Counter(type(part) for turn in before for part in turn.parts)
        of_kind = shown + Counter(map(type, parts))
        written: list[Part] = []
        for part in parts:
            shown[type(part)] += 1
            if type(part) in _INTRODUCED and of_kind[type(part)] > 1:
                written.append(Text(f"{_INTRODUCED[type(part)]} {shown[type(part)]}: "))
            written.append(part)
        return Turn("user", tuple(written))

    def reply(self, history: Sequence[Exchange], question: Turn) -> Iterator[str]:
        """Answer a question after others.

        Args:
            history: what was said before, the oldest first.
            question: of `question`.

        Returns:
            Pieces of the raw answer, tags and all, while it is being written; none is empty.
        """
        asked = _conversation(history, question, self._system)
        return stream_answer(self._model, self.processor, asked, self._config)

    def chat(self, query: Query, history: Sequence[tuple[Query, str]] | None = None) -> tuple[str, History]:
        """Answer a query after a history.

        Args:
            query: what is asked. Words alone open no file, whatever they spell (a Qwen-VL's do: `<img>path</img>`).
            history: as the last call gave it back; stays as it is.

        Returns:
            The raw answer, tags and all, and the history with this query and its answer.

        Raises:
            ValueError: an image or a video cannot be read, or the query is malformed.
        """
        *_, last = self.chat_stream(query, history)
        return last

    def chat_stream(
        self, query: Query, history: Sequence[tuple[Query, str]] | None = None
    ) -> Iterator[tuple[str, History]]:
        """Answer a query while the answer is being written.

        Args:
            query: as `chat` takes it.
            history: as `chat` takes it.

        Yields:
            The raw answer so far, and the history with this query and it; once where the answer is empty.

        Raises:
            ValueError: as `chat`.
        """
        said: list[Exchange] = []
        for asked, answered in history or ():
            said.append(Exchange(self._question_after(said, asked), answered))
        question, answer = self._question_after(said, query), ""
        for piece in self.reply(said, question):
            answer += piece
            yield answer, [*_pairs(history), (query, answer)]
        if not answer:
            yield answer, [*_pairs(history), (query, answer)]

    def _question_after(self, said: Sequence[Exchange], query: Query) -> Turn:
        return self.question(query_parts(query), [one.question for one in said])


def query_parts(query: Query) -> list[Asked]:
    """Read a question as callers write it.

    Args:
        query: words, or a list of `{"image": path or address}`, `{"video": path, address or list of frames' paths}` and
            `{"text": words}`; a `"type"` beside them, as in messages, may name the same.

    Returns:
        Its parts in their order.

    Raises:
        ValueError: an element is none of these.
    """
    return [Text(query)] if isinstance(query, str) else [_query_part(element) for element in query]


def _query_part(element: Mapping[str, Any]) -> Asked:
    named = dict(element) if isinstance(element, Mapping) else {}
    kind = named.pop("type", next(iter(named), None))
    if [kind] == list(named):
        value = named[kind]
        if kind == "text" and isinstance(value, str):
            return Text(value)
        if kind == "image" and isinstance(value, (str, os.PathLike)):
            return Image(os.fspath(value))
        if kind == "video" and isinstance(value, (str, os.PathLike)):
            return Video(os.fspath(value))
        if kind == "video" and isinstance(value, (list, tuple)) and value:
            return Video(tuple(map(os.fspath, value)))
    raise ValueError(
        f'the element {element!r} of a query is none of {{"image": path}}, {{"video": path or frames}} and '
        '{"text": words}.'
    )


def _pairs(history: Sequence[tuple[Query, str]] | None) -> History:
    return [(query, answer) for query, answer in history or ()]


def _conversation(history: Sequence[Exchange], question: Turn, system: str | None) -> Conversation:
    """Put the turns together."""
    opening = () if system is None else (Turn("system", (Text(system),)),)
    said = (turn for one in history for turn in (one.question, Turn("assistant", (RawAnswer(one.answer),))))
    return Conversation((*opening, *said, question), RecordId("the prompt", len(history)))
