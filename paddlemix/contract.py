"""What the rooms ask of one another: the seams between records, processors, models and answers.

A new family is whatever satisfies `Processor` and `Model`; everything that trains, evaluates, answers and draws is
written against these two.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from paddlemix.conversation import Conversation, Image, Turn, Video

if TYPE_CHECKING:
    import paddle
    import PIL.Image
    from paddle import nn

Size = tuple[int, int]
"""Width and height in pixels."""

GroundingForm = Literal["json", "tagged"]
"""The forms of boxes and points that a family may let its user choose from."""

AddedTokens = Literal["read", "text"]
"""What texts that spell a checkpoint's own added tokens hold: the tokens, or letters."""


@dataclass(frozen=True)
class Sample:
    """One conversation, ready for a model.

    Attributes:
        input_ids: int64[L].
        labels: int64[L], the token to predict at each place or `IGNORED_LABEL`; not shifted.
        position_ids: int64[3, L], the (t, h, w) rows of M-RoPE; None of a model that counts places by itself.
        media: the model's inputs for what the conversation shows, by their names in its `forward`. Axis 0 of each
            counts patches, images or videos, so that those of several samples are concatenated along it. An input that
            the conversation shows nothing for is left out.
        loss_weights: float32[L], by what the loss of each place's label is multiplied, 0 where there is none; None
            where each label weighs 1.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    position_ids: np.ndarray | None = None
    media: Mapping[str, np.ndarray] = field(default_factory=dict)
    loss_weights: np.ndarray | None = None


@dataclass(frozen=True)
class SampleSize:
    """What a conversation will cost, known from text and the headers of images and videos.

    Attributes:
        tokens: all of them.
        image_tokens: those that stand for images and videos.
        target_tokens: those a model is trained to say, whatever their weight; nothing predicts the first token.
        cut_tokens: those that were cut off before.
        images: images and videos that it shows.
        clamped: boxes, points and quads that stick out of an image by more than rounding, and are clamped to it.
    """

    tokens: int
    image_tokens: int
    target_tokens: int
    cut_tokens: int = 0
    images: int = 0
    clamped: int = 0


class Piece(NamedTuple):
    """A stretch of a prompt.

    Attributes:
        text: a control token's name, or plain text.
        control: whether `text` is one control token.
        weight: by what the loss of each of its tokens is multiplied; 0 is not learned.
        repeat: how often a control token stands there.
        answer: whether an assistant says it, learned or not.
    """

    text: str
    control: bool = False
    weight: float = 0.0
    repeat: int = 1
    answer: bool = False


Written = Piece | Image | Video
"""What a turn consists of once its texts, references, boxes, points and quads are pieces of a prompt."""


class ShownSize(NamedTuple):
    """The size of an image, or of a video's frames.

    Attributes:
        original: in the file, upright.
        seen: as the model sees it; None where it follows from the original size alone.
    """

    original: Size
    seen: Size | None = None


@dataclass(frozen=True)
class PlaceSizes:
    """The sizes of all that the boxes, points and quads of a conversation may lie on.

    Attributes:
        images: of its images, in order.
        videos: of its videos, in order.
    """

    images: Sequence[ShownSize]
    videos: Sequence[ShownSize] = ()

    @classmethod
    def of_images(cls, sizes: Iterable[Size]) -> PlaceSizes:
        """Take images without settings of their own, by their original sizes."""
        return cls([ShownSize(size) for size in sizes])


@dataclass(frozen=True)
class GroundedBox:
    """A box that a model named.

    Attributes:
        label: the reference it belongs to, "" where there is none.
        box: x1, y1, x2, y2 in pixels of the original image.
    """

    label: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class GroundedPoint:
    """A point that a model named.

    Attributes:
        label: the reference it belongs to, "" where there is none.
        point: x, y in pixels of the original image.
    """

    label: str
    point: tuple[float, float]


@dataclass(frozen=True)
class GroundedQuad:
    """A quad that a model named.

    Attributes:
        label: the reference it belongs to, "" where there is none.
        corners: x1, y1, x2, y2, x3, y3, x4, y4 in pixels of the original image.
    """

    label: str
    corners: tuple[float, ...]


class Grounding(Protocol):
    """A family's convention of boxes, points and quads: how they are written, and read from an answer.

    Sizes are in the order in which the conversation shows what they are of.
    """

    def write(self, turn: Turn, sizes: PlaceSizes) -> list[Written]:
        """Write a turn: its texts, references, boxes and so on become pieces; images and videos stay in their places.

        A raw answer is written as the model wrote it: its tags become the tokens that they were, all else is text.

        Args:
            turn: of a conversation. It is written as a whole, since a convention may put all of its boxes together.
            sizes: of all images and videos of the conversation.

        Returns:
            Pieces, none of them marked as trained, and the images and videos between them.

        Raises:
            ValueError: a box, a point or a quad lies on what the conversation does not show, or the convention has no
                form for it.
        """
        ...

    def parse(self, text: str, sizes: Sequence[ShownSize]) -> list[list[GroundedBox]]:
        """Read the boxes of a raw answer; malformed ones are ignored.

        Args:
            text: as the model wrote it.
            sizes: of the original images that it speaks of.

        Returns:
            The boxes of each image, in their order.
        """
        ...

    def parse_points(self, text: str, sizes: Sequence[ShownSize]) -> list[list[GroundedPoint]]:
        """Read the points of a raw answer; malformed ones are ignored.

        Args:
            text: as the model wrote it.
            sizes: of the original images that it speaks of.

        Returns:
            The points of each image, in their order.
        """
        ...

    def parse_quads(self, text: str, sizes: Sequence[ShownSize]) -> list[list[GroundedQuad]]:
        """Read the quads of a raw answer; malformed ones are ignored.

        Args:
            text: as the model wrote it.
            sizes: of the original images that it speaks of.

        Returns:
            The quads of each image, in their order; none where the convention has no form for them.
        """
        ...

    def strip(self, text: str) -> str:
        """Turn a raw answer into what a person reads."""
        ...


@dataclass(frozen=True)
class NewToken:
    """A token that a vocabulary is to get.

    Attributes:
        token: its text.
        special: whether answers are shown without it.
    """

    token: str
    special: bool = False


class Tokenizer(Protocol):
    """What processors, batches and answers ask of a tokenizer.

    Attributes:
        pad_token_id: fills a batch.
        eos_token_id: ends an answer.
        settings: the values of tokenizer_config.json.
    """

    pad_token_id: int
    eos_token_id: int
    settings: dict[str, Any]

    @property
    def size(self) -> int:
        """The least number that is above all ids; a model's embedding has at least so many rows."""
        ...

    def token_id(self, token: str) -> int:
        """Look up a control token."""
        ...

    def choose_added_tokens(self, choice: AddedTokens) -> None:
        """Read a checkpoint's own added tokens in texts from now on, or leave them letters."""
        ...

    def add_tokens(self, tokens: Sequence[NewToken]) -> dict[int, list[int]]:
        """Add tokens behind all others; give by the id of each, known ones too, the pieces its text is else cut to."""
        ...

    def decode(self, ids: Sequence[int], *, skip_control_tokens: bool = False) -> str:
        """Decode ids; never an exception."""
        ...

    def save_pretrained(self, folder: Path) -> None:
        """Write the tokenizer's files."""
        ...


class ConversationProcessor(Protocol):
    """Turns conversations into samples."""

    def encode(self, conversation: Conversation) -> Sample:
        """Tokenize, read and cut up the images and videos.

        Args:
            conversation: ends with an assistant's turn.

        Returns:
            A training sample.

        Raises:
            RecordError: an image or video cannot be read, or the record does not fit `max_length`.
        """
        ...

    def measure(self, conversation: Conversation) -> SampleSize:
        """Tell the size that `encode` will give, and check what needs no pixels; called in several processes at once.

        Args:
            conversation: ends with an assistant's turn.

        Returns:
            Its tokens.

        Raises:
            RecordError: as `encode`.
        """
        ...

    def fingerprint(self) -> str:
        """Give a text that differs from another processor's wherever `measure` could."""
        ...


class Processor(ConversationProcessor, Protocol):
    """What training, evaluation and the command-line tools ask beside samples."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's."""
        ...

    @property
    def grounding(self) -> Grounding:
        """The family's convention of boxes."""
        ...

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer whatever else a checkpoint's generation_config.json names as its end."""
        ...

    @property
    def end_of_turn(self) -> str:
        """The token that stands behind an answer in a conversation, and is learned with it."""
        ...

    def choose_added_tokens(self, choice: AddedTokens) -> None:
        """Read the tokenizer's own added tokens in texts from now on, or leave them letters."""
        ...

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write everything that `from_pretrained` reads beside a model."""
        ...

    def encode_prompt(self, conversation: Conversation) -> Sample:
        """Make what a model answers to: the conversation, which ends with a user's turn, and the answer's opening."""
        ...

    def place_sizes(self, conversation: Conversation) -> PlaceSizes:
        """Read the sizes of all that a conversation's boxes may lie on."""
        ...

    def image_size(self, conversation: Conversation, index: int = 0) -> Size:
        """Read the size of one of the conversation's images, upright."""
        ...

    def open_image(self, path: str) -> PIL.Image.Image:
        """Decode an image as the model sees it, but for its size: upright, in RGB."""
        ...

    def open_video(self, path: str | tuple[str, ...]) -> AbstractContextManager[Any]:
        """Lend a video as `paddlemix.media.video.open_video` does, with images that are frames as `open_image` has."""
        ...

    def decode(
        self, ids: Sequence[int], *, skip_control_tokens: bool = False, skip_special_tokens: bool = False
    ) -> str:
        """Give the text of ids, names and boxes with their tags unless skipped by either name; never an exception."""
        ...

    def batch_decode(self, ids: Iterable[Any], *, skip_special_tokens: bool = False) -> list[str]:
        """Give the texts of rows of ids."""
        ...


class LayerCache(Protocol):
    """The keys and values one attention layer has seen, `length` tokens; the first call brought `prefilled` of them.

    Attributes:
        length: as above.
        prefilled: as above.
        rows: int32[B, capacity], which row of the memory holds each token of each of the B rows; None where it is the
            row itself.
    """

    length: int
    prefilled: int
    rows: paddle.Tensor | None

    def extend(self, key: paddle.Tensor, value: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Append float[B, L, G, D] each and return all so far, float[B, length, G, D]."""
        ...

    def open(self, length: int) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Count in tokens that the caller writes itself, after the others in float[B or more, capacity, G, D] each."""
        ...


class ModelOutput(Protocol):
    """What a forward pass gives.

    Attributes:
        loss: float32[], when labels were given.
        logits: float[B, L, V]; None in training, where only the target tokens' logits are computed.
        past_key_values: the cache that was passed in, filled further.
    """

    loss: paddle.Tensor | None
    logits: paddle.Tensor | None
    past_key_values: list[LayerCache] | None

    def next_inputs(self) -> dict[str, paddle.Tensor]:
        """Give what the model wants back with the next tokens of an answer, by the name of its input."""
        ...


class ModelConfig(Protocol):
    """What is asked of a model's config, whatever the family.

    Attributes:
        model_type: the family's, as config.json names it.
        num_hidden_layers: of the language model, each with a cache of its own.
        vocab_size: tokens that the model tells apart.
        eos_token_id: what ends an answer; None where config.json names nothing.
        pad_token_id: fills a batch; likewise.
        tie_word_embeddings: whether the head shares the embedding's weight.
        tensor_parallel_degree: how many ranks share each layer.
    """

    model_type: str
    num_hidden_layers: int
    vocab_size: int
    eos_token_id: int | list[int] | None
    pad_token_id: int | None
    tie_word_embeddings: bool
    tensor_parallel_degree: int

    def to_published(self) -> dict[str, Any]:
        """Give the config.json of the published checkpoints."""
        ...


class Model(Protocol):
    """What training, generation and evaluation ask of a model; one with adapters around it has all of it too.

    Attributes:
        config: its shape.
        training: whether it is in training mode.
        carried_files: what the checkpoint says beside its weights, by file name; saved with it.
    """

    config: ModelConfig
    training: bool
    carried_files: dict[str, bytes]

    @property
    def input_names(self) -> Collection[str]:
        """The names that `__call__` takes."""
        ...

    def __call__(self, **inputs: Any) -> ModelOutput:
        """Run the model."""
        ...

    def lay_out(self, config: Any, batch: Mapping[str, np.ndarray], past: int = 0) -> dict[str, np.ndarray]:
        """Find out what the host must know of a batch of inputs; `past` tokens are cached."""
        ...

    def generate(self, input_ids: paddle.Tensor, generation_config: Any = None, **settings: Any) -> paddle.Tensor:
        """Continue prompts, int64[B, L] with padding on the left, to int64[B, L + new]."""
        ...

    def knows_turns(self, end_of_turn: int) -> bool:
        """Tell whether the checkpoint was trained on conversations."""
        ...

    def begin_tuning_on_turns(self, end_of_turn: int, other_ends: Collection[int]) -> None:
        """Let `carried_files` say that a turn's end ends answers, before fine-tuning on conversations."""
        ...

    def set_recompute(self, *, vision: bool, language: bool) -> None:
        """Choose which parts' blocks compute their activations twice in training and do not keep them."""
        ...

    def get_input_embeddings(self) -> nn.Layer:
        """Give the token embedding."""
        ...

    def train(self) -> None:
        """Switch to training mode."""
        ...

    def eval(self) -> None:
        """Switch to evaluation mode."""
        ...

    def parameters(self) -> list[paddle.Tensor]:
        """Give all parameters."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, paddle.Tensor]]:
        """Give all parameters with their names, which are the published ones."""
        ...

    def named_sublayers(self) -> Iterator[tuple[str, nn.Layer]]:
        """Give all layers inside with their names."""
        ...

    def save_pretrained(self, save_dir: str | os.PathLike[str], **options: Any) -> None:
        """Write config.json and safetensors files that load here and in transformers."""
        ...
