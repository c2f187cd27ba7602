"""From a set of conversations to a model's answers, ready to be scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tqdm import tqdm

from paddlemix.contract import Model, Processor, Size
from paddlemix.conversation import Box, Conversation, Point, Reference, Text, Turn
from paddlemix.evaluation.report import Prediction
from paddlemix.generation import GenerationConfig
from paddlemix.generation.answer import answer


def predict_set(
    model: Model,
    processor: Processor,
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


def question_of(conversation: Conversation) -> Conversation:
    """Leave a conversation's last answer out."""
    return Conversation(conversation.turns[:-1], conversation.source)


def _prediction(processor: Processor, conversation: Conversation, raw: str, grounding: bool) -> Prediction:
    gold = conversation.turns[-1]
    images = conversation.images
    size = processor.image_size(conversation) if images else None
    convention = processor.grounding_of(conversation)
    return Prediction(
        task=conversation.task,
        text=convention.strip(raw),
        boxes=tuple(found.box for found in convention.parse(raw, [size])[0]) if size else (),
        gold_answers=conversation.answers or (_spoken(gold),),
        gold_boxes=tuple(box.in_pixels(*size) for box in _boxes(gold)) if size else (),
        grounding=grounding,
        source=conversation.source,
        points=tuple(_in_fractions(found.point, size) for found in convention.parse_points(raw, [size])[0])
        if size
        else (),
        gold_points=tuple(part.in_fractions(*size) for part in gold.parts if isinstance(part, Point)) if size else (),
    )


def _in_fractions(point: tuple[float, float], size: Size) -> tuple[float, float]:
    return Point(*point).in_fractions(*size)


def unanswered(processor: Processor, conversation: Conversation, *, grounding: bool) -> Prediction:
    """Make the prediction that `predict_set` gives for a model that says nothing.

    Args:
        processor: of the model's family.
        conversation: ends with the right answer.
        grounding: whether the question asks for boxes.

    Returns:
        The prediction, to be scored as others are.
    """
    return _prediction(processor, conversation, "", grounding)


def asks_for_boxes(conversations: Sequence[Conversation]) -> bool:
    """Tell whether most answers of a set's chats hold boxes."""
    answers = (conversation.turns[-1] for conversation in conversations if conversation.task == "chat")
    return sum(1 if _boxes(answer) else -1 for answer in answers) > 0


def _boxes(turn: Turn) -> list[Box]:
    return [part for part in turn.parts if isinstance(part, Box)]


def _spoken(turn: Turn) -> str:
    return "".join(part.text for part in turn.parts if isinstance(part, (Text, Reference))).strip()
