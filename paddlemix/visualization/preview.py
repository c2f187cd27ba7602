"""Records as a model will see them: their tokens, the trained ones marked, and their images with what lies on them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby

from PIL import Image

from paddlemix.contract import Piece, PlaceSizes, Processor, Sample, ShownSize, Size
from paddlemix.conversation import Box, Conversation, Placed, Point, RecordError, Reference, Turn
from paddlemix.media.data_url import shown
from paddlemix.media.frames import frame_indices, frame_range
from paddlemix.names import IGNORED_LABEL
from paddlemix.processors.turns.tool_texts import calls_text
from paddlemix.visualization.answers import answer_boxes
from paddlemix.visualization.draw import Labelled, LabelledBox, LabelledPoint, LabelledQuad, draw_boxes

# The longer side of an image on the page, in pixels: large enough for labels, small enough for many records.
_LARGEST, _SMALLEST = 512, 256
_FRAMES = 4


@dataclass(frozen=True)
class Stretch:
    """Neighbouring tokens of one kind.

    Attributes:
        text: what they say; of a repeated control token, one of them.
        weight: by what the loss of each is multiplied; 0 where a model is not trained to say them.
        control: whether `text` is a control token; text that merely spells one is not.
        repeat: how many tokens stand there for a control token's text.
    """

    text: str
    weight: float
    control: bool
    repeat: int


@dataclass(frozen=True)
class Thumbnail:
    """An image on the page.

    Attributes:
        source: a data: URL.
        caption: what it is.
    """

    source: str
    caption: str


@dataclass(frozen=True)
class RecordView:
    """A record on the page.

    Attributes:
        title: file and index.
        tokens: all of them; 0 where there is a problem.
        image_tokens: those of images and videos.
        trained_tokens: those that a model is trained to say.
        stretches: the tokens.
        thumbnails: images, and some frames of videos.
        gold: the right answer, in the family's convention of boxes.
        answer: what a model says in its place, as it wrote it; None where none was asked.
        problem: why the record cannot be used, "" where it can.
    """

    title: str
    tokens: int = 0
    image_tokens: int = 0
    trained_tokens: int = 0
    stretches: tuple[Stretch, ...] = ()
    thumbnails: tuple[Thumbnail, ...] = ()
    gold: str = ""
    answer: str | None = None
    problem: str = ""


def view_record(
    conversation: Conversation, processor: Processor, answer: Callable[[Conversation], str] | None = None
) -> RecordView:
    """Encode a record and take it apart for a page.

    Args:
        conversation: the record.
        processor: a model family's.
        answer: gives a model's raw answer in place of the record's last; None asks no model.

    Returns:
        What to show; a record that cannot be encoded is shown by its problem.
    """
    try:
        sample = processor.encode(conversation)
        size = processor.measure(conversation)
        answered = None if answer is None else answer(conversation)
        sizes = processor.place_sizes(conversation)
    except RecordError as error:
        return view_problem(error)
    return RecordView(
        title=str(conversation.source),
        tokens=size.tokens,
        image_tokens=size.image_tokens,
        trained_tokens=size.target_tokens,
        stretches=tuple(_stretches(sample, processor)),
        thumbnails=(
            *_images(conversation, sample, processor),
            *_frames(conversation, processor),
            *_answered_images(conversation, processor, answered or "", sizes.images),
        ),
        gold=_right_answer(conversation.turns[-1], processor, sizes),
        answer=answered,
    )


def view_problem(error: RecordError) -> RecordView:
    """Make the view of a record that cannot be used.

    Args:
        error: why.

    Returns:
        What to show.
    """
    return RecordView(title=str(error.source), problem=error.problem)


def _right_answer(turn: Turn, processor: Processor, sizes: PlaceSizes) -> str:
    """Write what a model should have said: words and places in the family's convention, and calls."""
    words = "".join(one.text for one in processor.grounding.write(turn, sizes) if isinstance(one, Piece))
    return "\n".join(filter(None, (words, calls_text(turn.calls))))


def _stretches(sample: Sample, processor: Processor) -> Iterator[Stretch]:
    @cache
    def is_control(token: int) -> bool:
        return not processor.decode([token], skip_control_tokens=True)

    def kind(pair: tuple[int, float]) -> tuple[float, int | None]:
        token, weight = pair
        return weight, token if is_control(token) else None

    weights = (sample.labels != IGNORED_LABEL) * (1.0 if sample.loss_weights is None else sample.loss_weights)
    pairs = zip(sample.input_ids.tolist(), weights.tolist(), strict=True)
    for (weight, control), group in groupby(pairs, key=kind):
        ids = [token for token, _ in group]
        text = processor.decode(ids if control is None else ids[:1])
        yield Stretch(text, weight, control is not None, len(ids))


def _images(conversation: Conversation, sample: Sample, processor: Processor) -> Iterator[Thumbnail]:
    for index, part in enumerate(conversation.images):
        image = processor.open_image(part.path)
        placed = [
            _on_image(label, one, image.size)
            for label, one in _labelled_places(conversation)
            if (one.image, one.video) == (index, None)
        ]
        caption = f"Picture {index + 1}: {shown(part.path)}, {image.width} x {image.height} pixels"
        if "image_grid_thw" in sample.media:
            _, height, width = sample.media["image_grid_thw"][index]
            caption += f", seen as {width} x {height} patches"
        yield Thumbnail(_as_url(_with_places(image, placed)), caption + _counted(placed))


def _answered_images(
    conversation: Conversation, processor: Processor, raw: str, sizes: Sequence[ShownSize]
) -> Iterator[Thumbnail]:
    """Draw the boxes, points and quads that a model named, on the images that have some."""
    found = answer_boxes(processor.grounding, raw, sizes)
    for number, (part, placed) in enumerate(zip(conversation.images, found, strict=True), 1):
        if placed:
            caption = f"Picture {number} as the model answers{_counted(placed)}"
            yield Thumbnail(_as_url(_with_places(processor.open_image(part.path), placed)), caption)


def _counted(placed: Sequence[Labelled]) -> str:
    """Say how many boxes, points and quads there are, where there are any."""
    kinds = ((LabelledBox, "boxes"), (LabelledPoint, "points"), (LabelledQuad, "quads"))
    counts = ((name, sum(isinstance(one, kind) for one in placed)) for kind, name in kinds)
    return "".join(f"; {name}: {count}" for name, count in counts if count)


def _labelled_places(conversation: Conversation) -> Iterator[tuple[str, Placed]]:
    """Pair every box, point and quad with the reference before it in its turn."""
    for turn in conversation.turns:
        label = ""
        for part in turn.parts:
            if isinstance(part, Reference):
                label = part.text
            elif isinstance(part, Placed):
                yield label, part


def _on_image(label: str, placed: Placed, size: Size) -> Labelled:
    """Count a record's box, point or quad in pixels of the image."""
    pixels = placed.in_pixels(*size)
    if isinstance(placed, Point):
        return LabelledPoint(label, (pixels[0], pixels[1]))
    if isinstance(placed, Box):
        return LabelledBox(label, (pixels[0], pixels[1], pixels[2], pixels[3]))
    return LabelledQuad(label, pixels)


def _with_places(image: Image.Image, placed: Sequence[Labelled]) -> Image.Image:
    """Draw on the image in the size of the page, so that lines and letters suit it, whatever size it had."""
    longer = max(image.size)
    scale = min(max(longer, _SMALLEST), _LARGEST) / longer
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    scaled = [_scaled(one, image.size, size) for one in placed]
    return draw_boxes(image.resize(size, Image.Resampling.BICUBIC), scaled)


def _scaled(placed: Labelled, old: Size, new: Size) -> Labelled:
    """Move a box, a point or a quad from the original image to one of another size."""
    x, y = new[0] / old[0], new[1] / old[1]
    if isinstance(placed, LabelledQuad):
        return LabelledQuad(
            placed.label, tuple(value * (x, y)[place % 2] for place, value in enumerate(placed.corners))
        )
    if isinstance(placed, LabelledPoint):
        left, top = placed.point
        return LabelledPoint(placed.label, (left * x, top * y))
    left, top, right, bottom = placed.box
    return LabelledBox(placed.label, (left * x, top * y, right * x, bottom * y))


def _frames(conversation: Conversation, processor: Processor) -> Iterator[Thumbnail]:
    for index, part in enumerate(conversation.videos):
        path = part.path if isinstance(part.path, str) else part.path[0]
        with processor.open_video(part.path) as video:
            asked = part.settings
            stretch = frame_range(video.info.frames, video.info.rate, start=asked.start, end=asked.end)
            places = frame_indices(len(stretch), min(_FRAMES, len(stretch)), stretch.start).tolist()
            for place, frame in zip(places, video.read(places), strict=True):
                image = Image.fromarray(frame)
                placed = [
                    _on_image(label, one, image.size)
                    for label, one in _labelled_places(conversation)
                    if one.video == index
                ]
                caption = f"Video {index + 1}: {shown(path)}, frame {place + 1} of {video.info.frames}"
                yield Thumbnail(_as_url(_with_places(image, placed)), caption + _counted(placed))


def _as_url(image: Image.Image) -> str:
    file = io.BytesIO()
    # Without subsampling the colours of thin lines stay apart from what is under them.
    image.save(file, "JPEG", quality=85, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
