"""How people ask a model: words, images and a video become a question, and what was said before comes with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from paddlemix.contract import Model, Processor
from paddlemix.conversation import Conversation, Image, Part, RecordError, RecordId, Text, Turn, Video
from paddlemix.datasets.formats.tags import split_tags
from paddlemix.generation.answer import stream_answer
from paddlemix.generation.settings import GenerationConfig


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

    A family whose users ask in a way of their own overrides both methods, and names its class in the registry.

    Args:
        model: in evaluation mode.
        processor: of the model's family.
        config: how answers are written.

    Attributes:
        processor: as it was given; reads the boxes of answers.
    """

    processor: Processor

    def __init__(self, model: Model, processor: Processor, config: GenerationConfig) -> None:
        self.processor = processor
        self._model, self._config = model, config

    @staticmethod
    def question(images: Sequence[str], video: Sequence[str], words: str, *, shown: int = 0) -> Turn:
        """Make a user's turn; no model is needed for it.

        Of several images each is numbered, those that were shown before included.

        Args:
            images: paths or addresses.
            video: a file, or the files of a video's frames, or nothing.
            words: what is asked.
            shown: how many images were shown before.

        Returns:
            The turn, images and video before the words.

        Raises:
            ValueError: an image cannot be shown to this family.
        """
        parts: list[Part] = []
        for number, path in enumerate(images, shown + 1):
            if shown + len(images) > 1:
                parts.append(Text(f"Picture {number}: "))
            parts.append(Image(path))
        if video:
            parts.append(Video(video[0] if len(video) == 1 else tuple(video)))
        return Turn("user", (*parts, Text(words)))

    def reply(self, history: Sequence[Exchange], question: Turn) -> Iterator[str]:
        """Answer a question after others.

        Args:
            history: what was said before, the oldest first.
            question: of `question`.

        Returns:
            Pieces of the raw answer, tags and all, while it is being written; none is empty.
        """
        return stream_answer(self._model, self.processor, _conversation(history, question), self._config)


def _conversation(history: Sequence[Exchange], question: Turn) -> Conversation:
    """Put the turns together; answers are read as those of a record are, so that their boxes are boxes again."""
    source = RecordId("the prompt", len(history))
    turns: list[Turn] = []
    shown = 0
    for exchange in history:
        shown += sum(isinstance(part, Image) for part in exchange.question.parts)
        turns += [exchange.question, Turn("assistant", _answer_parts(exchange.answer, shown, source))]
    return Conversation((*turns, question), source)


def _answer_parts(answer: str, shown: int, source: RecordId) -> tuple[Part, ...]:
    """Read a raw answer; one whose boxes are malformed, or lie on nothing, is plain text."""
    plain = (Text(answer),)
    if not shown:
        return plain
    try:
        return split_tags(answer, shown - 1, source) or plain
    except RecordError:
        return plain
