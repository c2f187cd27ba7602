"""From conversations that end with a user's turn to a model's raw answers, several at once or one while it is written.

A raw answer is what the model wrote, the tags of names and boxes included; `processor.grounding` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from paddlemix.contract import Model, Processor
from paddlemix.conversation import Conversation
from paddlemix.datasets.collate import PadCollator
from paddlemix.generation.ends import named_ends
from paddlemix.generation.settings import GenerationConfig
from paddlemix.generation.text import stream_text


def answer(
    model: Model, processor: Processor, questions: Sequence[Conversation], config: GenerationConfig
) -> list[str]:
    """Write the raw answers to several conversations at once.

    Args:
        model: in evaluation mode.
        processor: of the model's family.
        questions: end with a user's turn each.
        config: how the answers are written.

    Returns:
        The answers in the order of the questions; none depends on the others.

    Raises:
        RecordError: an image or video of a question cannot be read.
    """
    answers = [""] * len(questions)
    for row, piece in _pieces(model, processor, questions, config):
        answers[row] += piece
    return answers


def stream_answer(
    model: Model, processor: Processor, question: Conversation, config: GenerationConfig
) -> Iterator[str]:
    """Write the raw answer to a conversation, piece by piece.

    Args:
        model: in evaluation mode.
        processor: of the model's family.
        question: ends with a user's turn.
        config: how the answer is written.

    Yields:
        Pieces of whole characters, never empty; joined they are what `answer` gives. Nothing runs between them, and
        nothing more once the iterator is closed.

    Raises:
        RecordError: an image or video of the question cannot be read.
    """
    for _, piece in _pieces(model, processor, [question], config):
        yield piece


def _pieces(
    model: Model, processor: Processor, questions: Sequence[Conversation], config: GenerationConfig
) -> Iterator[tuple[int, str]]:
    tokenizer = processor.tokenizer
    collate = PadCollator(tokenizer.pad_token_id, side="left")
    batch = collate([processor.encode_prompt(question) for question in questions])
    named = named_ends(model) if config.eos_token_ids is None else ()
    end_token_ids = (tokenizer.eos_token_id, tokenizer.pad_token_id, *named)
    config = replace(config, stop_token_ids=[*config.stop_token_ids, *processor.stop_token_ids])
    return stream_text(model, batch, config, decode=processor.decode, end_token_ids=end_token_ids)
