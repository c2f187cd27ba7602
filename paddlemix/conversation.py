"""The neutral form every record takes on its way to a model.

A record format turns its records into a `Conversation`; a model family's processor turns a `Conversation` into tokens,
labels and pixel patches. Nothing here knows a file format, a tokenizer or a box convention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from paddlemix.printable import in_one_line, short_line

T = TypeVar("T")
Role = Literal["system", "user", "assistant", "tool"]
BoxUnit = Literal["pixel", "thousandth", "fraction"]
Task = Literal["chat", "caption", "vqa"]
Corner = tuple[float, float]


@dataclass(frozen=True)
class Text:
    """Plain text. Control tokens spelled inside it stay plain text."""

    text: str


@dataclass(frozen=True)
class ImageSettings:
    """What a user may ask of one image; None leaves it to the model family's processor.

    Attributes:
        min_pixels: smallest area of the resized image.
        max_pixels: largest area of the resized image.
        resized_height: the image is resized as if it had this height and `resized_width`.
        resized_width: pixels, set together with `resized_height`.
    """

    min_pixels: int | None = None
    max_pixels: int | None = None
    resized_height: int | None = None
    resized_width: int | None = None


@dataclass(frozen=True)
class Image:
    """The place of an image in a turn.

    Attributes:
        path: a local file, an http(s) address or a data: URL, resolved against the record file's folder already.
        settings: for this image alone; they take precedence over the processor's own.
    """

    path: str
    settings: ImageSettings = ImageSettings()


@dataclass(frozen=True)
class VideoSettings:
    """What a user may ask of a video; None leaves it to the model family's processor.

    Attributes:
        start: seconds into the file at which what is shown begins.
        end: seconds into the file at which it ends.
        nframes: how many frames to take, in place of `fps`.
        fps: frames to take a second.
        min_frames: at least so many, where `fps` decides.
        max_frames: at most so many, where `fps` decides.
        min_pixels: smallest area of a resized frame.
        max_pixels: largest area of a resized frame.
        total_pixels: largest area of all frames together, two frames counting as one.
        resized_height: frames are resized as if they had this height and `resized_width`.
        resized_width: pixels, set together with `resized_height`.
    """

    start: float | None = None
    end: float | None = None
    nframes: int | None = None
    fps: float | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    total_pixels: int | None = None
    resized_height: int | None = None
    resized_width: int | None = None


@dataclass(frozen=True)
class Video:
    """The place of a video in a turn.

    Attributes:
        path: a local file, a folder of frames or an http(s) address, or the paths of its frames, in order; all of these
            are shown.
        settings: for this video alone; they take precedence over the processor's own.
    """

    path: str | tuple[str, ...]
    settings: VideoSettings = VideoSettings()


@dataclass(frozen=True)
class Reference:
    """The name of what the boxes behind it show, such as "the red circle"."""

    text: str


class Placed:
    """What lies on one of a conversation's images, or on every frame of one of its videos.

    Attributes:
        unit: "pixel" counts pixels of the original file (after EXIF rotation, before any resize), "thousandth" is
            0..1000 of its width and height, "fraction" is 0..1.
        image: index into `Conversation.images`; without meaning where `video` is given.
        video: index into `Conversation.videos` of what lies on a video; None of what lies on an image.
    """

    unit: BoxUnit
    image: int
    video: int | None

    @property
    def kind(self) -> str:
        """What to call it in errors."""
        return type(self).__name__.lower()

    @property
    def numbers(self) -> tuple[float, ...]:
        """The x and y of each corner in turn, in `unit`."""
        raise NotImplementedError

    def in_fractions(self, width: int, height: int) -> tuple[float, ...]:
        """Convert to fractions of an image's sides.

        Args:
            width: pixels of the original image.
            height: pixels of the original image.

        Returns:
            x and y of each corner in turn, from 0 to 1 inside the image.
        """
        ends = {"pixel": (width, height), "thousandth": (1000, 1000), "fraction": (1, 1)}[self.unit]
        return tuple(number / ends[place % 2] for place, number in enumerate(self.numbers))

    def in_pixels(self, width: int, height: int) -> tuple[float, ...]:
        """Convert to pixels of the original image.

        Args:
            width: pixels of the original image.
            height: pixels of the original image.

        Returns:
            x and y of each corner in turn.
        """
        size = (width, height)
        return tuple(value * size[place % 2] for place, value in enumerate(self.in_fractions(*size)))


@dataclass(frozen=True)
class Box(Placed):
    """An axis-aligned box.

    Attributes:
        x1: left edge, in `unit`.
        y1: top edge, in `unit`.
        x2: right edge, in `unit`.
        y2: bottom edge, in `unit`.
        unit: see `Placed`.
        image: see `Placed`.
        video: see `Placed`.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    unit: BoxUnit = "pixel"
    image: int = 0
    video: int | None = None

    @property
    def numbers(self) -> tuple[float, ...]:
        """x1, y1, x2, y2, in `unit`."""
        return self.x1, self.y1, self.x2, self.y2


@dataclass(frozen=True)
class Point(Placed):
    """A place, such as where to click.

    Attributes:
        x: from the left edge, in `unit`.
        y: from the top edge, in `unit`.
        unit: see `Placed`.
        image: see `Placed`.
        video: see `Placed`.
    """

    x: float
    y: float
    unit: BoxUnit = "pixel"
    image: int = 0
    video: int | None = None

    @property
    def numbers(self) -> tuple[float, ...]:
        """x, y, in `unit`."""
        return self.x, self.y


@dataclass(frozen=True)
class Quad(Placed):
    """Four corners, such as those of a line of slanted text.

    Attributes:
        corners: x1, y1, x2, y2, x3, y3, x4, y4, in `unit`, in the order in which they go round.
        unit: see `Placed`.
        image: see `Placed`.
        video: see `Placed`.
    """

    corners: tuple[float, ...]
    unit: BoxUnit = "pixel"
    image: int = 0
    video: int | None = None

    @property
    def numbers(self) -> tuple[float, ...]:
        """The corners, in `unit`."""
        return self.corners


def goes_round(corners: Sequence[float]) -> bool:
    """Tell whether four corners, in their order, enclose an area, and no side crosses another.

    Args:
        corners: x and y of each in turn.

    Returns:
        False where all lie on a line, or are given row by row.
    """
    a, b, c, d = zip(corners[::2], corners[1::2], strict=True)
    return _turn(a, b, c) + _turn(a, c, d) != 0 and not _cross(a, b, c, d) and not _cross(b, c, d, a)


def _turn(one: Corner, other: Corner, third: Corner) -> float:
    """Compute twice the area of a triangle, negative where it goes round the other way."""
    return (other[0] - one[0]) * (third[1] - one[1]) - (other[1] - one[1]) * (third[0] - one[0])


def _cross(start: Corner, end: Corner, first: Corner, last: Corner) -> bool:
    """Tell whether a line from `start` to `end` crosses one from `first` to `last`."""
    return (
        _turn(start, end, first) * _turn(start, end, last) < 0
        and _turn(first, last, start) * _turn(first, last, end) < 0
    )


@dataclass(frozen=True)
class RawAnswer:
    """What a model said in an earlier turn, as it wrote it; its family's convention of boxes tells tags from text."""

    text: str


Part = Text | Image | Video | Reference | Placed | RawAnswer


@dataclass(frozen=True)
class RecordId:
    """Where a conversation comes from: what an error about it has to name."""

    file: str
    index: int

    def __str__(self) -> str:
        return f"{in_one_line(self.file)}, record {self.index}"


@dataclass(frozen=True)
class ToolCall:
    """A function that an assistant calls.

    Attributes:
        name: of the function.
        arguments: an object, as JSON text.
    """

    name: str
    arguments: str


@dataclass(frozen=True)
class Turn:
    """What one role says. Assistant turns are what a model is trained to say.

    Attributes:
        role: who speaks; "tool" is what a called function gave back.
        parts: what is said.
        weight: by what the loss of each of the turn's tokens is multiplied; 0 is context only. None means 1 of an
            assistant's turn, and 0 of others.
        calls: the functions that an assistant calls behind its words.
    """

    role: Role
    parts: tuple[Part, ...]
    weight: float | None = None
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class Conversation:
    """Turns in their order; user and assistant alternate after an optional system turn, or tools and assistant.

    Attributes:
        turns: what is said, by whom.
        source: the record it was read from.
        answers: the texts that an answer to the last user turn is scored against, no tags in them; empty for "chat".
        task: which metric fits. Grounding has no task of its own: it is told by `Box` and `Quad` parts.
        tools: the functions that an assistant may call, each an object as JSON text.
        notes: what a user should know of how the record was read, each a sentence without the record's name, so that
            those of many records can be counted.
    """

    turns: tuple[Turn, ...]
    source: RecordId
    answers: tuple[str, ...] = ()
    task: Task = "chat"
    tools: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> Iterator[Part]:
        """All parts of all turns, in order."""
        return (part for turn in self.turns for part in turn.parts)

    @property
    def images(self) -> tuple[Image, ...]:
        """The images in the order in which the turns show them."""
        return tuple([part for turn in self.turns for part in turn.parts if isinstance(part, Image)])

    @property
    def videos(self) -> tuple[Video, ...]:
        """The videos in the order in which the turns show them."""
        return tuple([part for turn in self.turns for part in turn.parts if isinstance(part, Video)])


class RecordError(ValueError):
    """A record that cannot be used, named by file and index.

    Args:
        source: the record.
        problem: what is wrong, with the value, what was expected and what to change; what it quotes of a record is made
            printable, and shortened where it is very long.
    """

    def __init__(self, source: RecordId, problem: str) -> None:
        problem = short_line(problem)
        super().__init__(f"{source}: {problem}")
        self.source = source
        self.problem = problem

    def __reduce__(self) -> tuple[type[RecordError], tuple[Any, ...]]:
        # Exceptions cross from data workers to the trainer by pickling, which replays __init__ with these.
        return type(self), (self.source, self.problem)


class OverlongError(RecordError):
    """A record of more tokens than a training sample may have."""


class UnknownKeysError(RecordError):
    """A record with keys that nothing reads.

    Args:
        source: the record.
        keys: such as "score", or "messages[].score" in each of a list.
    """

    def __init__(self, source: RecordId, keys: tuple[str, ...]) -> None:
        names = ", ".join(f"`{key}`" for key in keys)
        super().__init__(
            source,
            f"nothing reads {names}; correct the spelling, use `columns` of the set, or name it in `ignore_keys`",
        )
        self.keys = keys

    def __reduce__(self) -> tuple[type[RecordError], tuple[Any, ...]]:
        return type(self), (self.source, self.keys)


def result_or_error(function: Callable[..., T], *args: Any) -> T | RecordError:
    """Call a function whose `RecordError` is to be collected with others.

    Args:
        function: what to call.
        *args: what to call it with.

    Returns:
        What the call returns, or the `RecordError` that it raises.
    """
    try:
        return function(*args)
    except RecordError as error:
        return error
