"""From a set of conversations to a model's answers, ready to be scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from paddlemix.conversation import Box, Conversation, Reference, Text, Turn
from paddlemix.datasets.collate import PadCollator
from paddlemix.evaluation.report import Prediction
from paddlemix.generation import GenerationConfig, stream_text


def predict_set(
    model: Any,
    processor: Any,
    conversations: Sequence[Conversation],
    config: GenerationConfig,
    *,
    batch_size: int,
    title: str = "predicting",
    grounding: bool | None = None,
) -> Iterator[Prediction]:
    """Let the model give each conversation's last answer, with a progress bar.

    In a chat set whose answers mostly hold boxes every question asks for boxes: an answer without any means that there
    is nothing to find.

    Args:
        model: in evaluation mode.
        processor: of the model's family.
        conversations: one set's; each ends with the right answer.
        config: how answers are written.
        batch_size: conversations answered at once.
        title: of the progress bar.
        grounding: whether every question asks for boxes; None finds out from the conversations, which have to be all of
            the set's then.

    Yields:
        Predictions in the order of the conversations.
    """
    grounding = asks_for_boxes(conversations) if grounding is None else grounding
    with tqdm(total=len(conversations), desc=title, unit="record", disable=None) as bar:
        for start in range(0, len(conversations), batch_size):
            batch = conversations[start : start + batch_size]
            answers = answer(model, processor, [question_of(one) for one in batch], config)
            for conversation, raw in zip(batch, answers, strict=True):
                yield _prediction(processor, conversation, raw, grounding)
            bar.update(len(batch))


def answer(model: Any, processor: Any, questions: Sequence[Conversation], config: GenerationConfig) -> list[str]:
    """The model's raw answers, tags and all, to conversations that end with a user's turn."""
    answers = [""] * len(questions)
    for row, piece in _pieces(model, processor, questions, config):
        answers[row] += piece
    return answers


def stream_answer(model: Any, processor: Any, question: Conversation, config: GenerationConfig) -> Iterator[str]:
    """The model's raw answer, tags and all, while it is being written.

    Args:
        model: in evaluation mode.
        processor: of the model's family.
        question: ends with a user's turn.
        config: how the answer is written.

    Yields:
        Pieces of whole characters, never empty; joined they are what `answer` gives. Nothing runs between them, and
        nothing more once the iterator is closed.
    """
    for _, piece in _pieces(model, processor, [question], config):
        yield piece


def _pieces(
    model: Any, processor: Any, questions: Sequence[Conversation], config: GenerationConfig
) -> Iterator[tuple[int, str]]:
    tokenizer = processor.tokenizer
    collate = PadCollator(tokenizer.pad_token_id, side="left")
    batch = collate([processor.encode_prompt(question) for question in questions])
    end_token_ids = (tokenizer.eos_token_id, tokenizer.pad_token_id)
    config = replace(config, stop_token_ids=[*config.stop_token_ids, *processor.stop_token_ids])
    return stream_text(model, batch, config, decode=processor.decode, end_token_ids=end_token_ids)


def question_of(conversation: Conversation) -> Conversation:
    """The conversation without its last answer."""
    return Conversation(conversation.turns[:-1], conversation.source)


def _prediction(processor: Any, conversation: Conversation, raw: str, grounding: bool) -> Prediction:
    gold = conversation.turns[-1]
    images = conversation.images
    size = processor.image_size(conversation) if images else None
    return Prediction(
        task=conversation.task,
        text=processor.grounding.strip(raw),
        boxes=tuple(found.box for found in processor.grounding.parse(raw, [size])[0]) if size else (),
        gold_answers=conversation.answers or (_spoken(gold),),
        gold_boxes=tuple(box.in_pixels(*size) for box in _boxes(gold)) if size else (),
        grounding=grounding,
        source=conversation.source,
    )


def unanswered(processor: Any, conversation: Conversation, *, grounding: bool) -> Prediction:
    """What `predict_set` gives for a model that says nothing.

    Args:
        processor: of the model's family.
        conversation: ends with the right answer.
        grounding: whether the question asks for boxes.

    Returns:
        The prediction, to be scored as others are.
    """
    return _prediction(processor, conversation, "", grounding)


def asks_for_boxes(conversations: Sequence[Conversation]) -> bool:
    """Whether most answers of a set's chats hold boxes."""
    answers = (conversation.turns[-1] for conversation in conversations if conversation.task == "chat")
    return sum(1 if _boxes(answer) else -1 for answer in answers) > 0


def _boxes(turn: Turn) -> list[Box]:
    return [part for part in turn.parts if isinstance(part, Box)]


def _spoken(turn: Turn) -> str:
    return "".join(part.text for part in turn.parts if isinstance(part, (Text, Reference))).strip()
