"""From a set of conversations to a model's answers, ready to be scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tqdm import tqdm

from paddlemix.contract import Model, Processor, ShownSize, Size
from paddlemix.conversation import (
    Box,
    Conversation,
    Point,
    Quad,
    RecordError,
    Reference,
    Text,
    Turn,
    result_or_error,
)
from paddlemix.evaluation.grounding import BoxLike
from paddlemix.evaluation.report import Prediction
from paddlemix.generation import GenerationConfig
from paddlemix.generation.answer import answer
from paddlemix.processors.places import clamped
from paddlemix.processors.turns.tool_texts import calls_text


def predict_set(
    model: Model,
    processor: Processor,
    conversations: Sequence[Conversation],
    config: GenerationConfig,
    *,
    batch_size: int,
    title: str = "predicting",
    grounding: bool | None = None,
    skip: bool = False,
) -> Iterator[Prediction | RecordError]:
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
        skip: go on where a record cannot be used.

    Yields:
        For each conversation, in their order, the prediction; with `skip`, why there is none.

    Raises:
        RecordError: a record cannot be used, and `skip` is false.
    """
    grounding = asks_for_boxes(conversations) if grounding is None else grounding
    with tqdm(total=len(conversations), desc=title, unit="record", disable=None) as bar:
        for start in range(0, len(conversations), batch_size):
            batch = [_read(conversations, place) for place in range(start, min(start + batch_size, len(conversations)))]
            for found in _predict(model, processor, batch, config, grounding=grounding):
                if isinstance(found, RecordError) and not skip:
                    raise found
                yield found
            bar.update(len(batch))


def _read(conversations: Sequence[Conversation], place: int) -> Conversation | RecordError:
    return result_or_error(conversations.__getitem__, place)


def _predict(
    model: Model,
    processor: Processor,
    batch: Sequence[Conversation | RecordError],
    config: GenerationConfig,
    *,
    grounding: bool,
) -> list[Prediction | RecordError]:
    """Let the model answer a batch; records that cannot be used are left out of it."""
    asked = [one for one in batch if isinstance(one, Conversation)]
    try:
        answers = iter(answer(model, processor, [question_of(one) for one in asked], config) if asked else [])
    except RecordError as error:
        # All questions are encoded before the first is answered, so little is done twice.
        problems = {
            one.source: found
            for one in asked
            if isinstance(found := result_or_error(processor.encode_prompt, question_of(one)), RecordError)
        } or {error.source: error}
        rest = [problems.get(one.source, one) if isinstance(one, Conversation) else one for one in batch]
        return _predict(model, processor, rest, config, grounding=grounding)
    return [
        result_or_error(_prediction, processor, one, next(answers), grounding) if isinstance(one, Conversation) else one
        for one in batch
    ]


def question_of(conversation: Conversation) -> Conversation:
    """Leave a conversation's last answer out."""
    return Conversation(conversation.turns[:-1], conversation.source, tools=conversation.tools)


def _prediction(processor: Processor, conversation: Conversation, raw: str, grounding: bool) -> Prediction:
    gold = conversation.turns[-1]
    shown = processor.place_sizes(conversation).images if conversation.images else ()
    sizes = [one.original for one in shown]
    return Prediction(
        task=conversation.task,
        text=processor.grounding.strip(raw),
        boxes=_answered_boxes(processor, raw, shown),
        gold_answers=conversation.answers or (_spoken(gold),),
        gold_boxes=tuple(_on_image(clamped(box, sizes[box.image]), box.image) for box in _boxes(gold)),
        grounding=grounding,
        source=conversation.source,
        points=tuple(
            _in_fractions(found.point, size)
            for points, size in zip(processor.grounding.parse_points(raw, shown), sizes, strict=True)
            for found in points
        ),
        gold_points=tuple(
            _in_fractions(clamped(part, sizes[part.image]), sizes[part.image])
            for part in gold.parts
            if isinstance(part, Point) and part.video is None
        ),
    )


def _answered_boxes(processor: Processor, raw: str, sizes: Sequence[ShownSize]) -> tuple[BoxLike, ...]:
    """Read the boxes and quads of an answer, in pixels of the original images."""
    boxes, quads = processor.grounding.parse(raw, sizes), processor.grounding.parse_quads(raw, sizes)
    return (
        *(_on_image(found.box, image) for image, on_one in enumerate(boxes) for found in on_one),
        *(_on_image(found.corners, image) for image, on_one in enumerate(quads) for found in on_one),
    )


def _on_image(pixels: tuple[float, ...], image: int) -> BoxLike:
    """Say where a box or a quad lies; what is on the first image is known by its numbers alone."""
    if image == 0:
        return pixels
    return Box(*pixels, image=image) if len(pixels) == 4 else Quad(pixels, image=image)


def _in_fractions(pixels: tuple[float, ...], size: Size) -> tuple[float, float]:
    x, y = pixels
    return x / size[0], y / size[1]


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
    """Tell whether most answers of a set's chats hold boxes or quads."""
    answers = (conversation.turns[-1] for conversation in conversations if conversation.task == "chat")
    return sum(1 if _boxes(answer) else -1 for answer in answers) > 0


def _boxes(turn: Turn) -> list[Box | Quad]:
    return [part for part in turn.parts if isinstance(part, (Box, Quad)) and part.video is None]


def _spoken(turn: Turn) -> str:
    words = "".join(part.text for part in turn.parts if isinstance(part, (Text, Reference)))
    return f"{words}\n{calls_text(turn.calls)}".strip()
