"""What datasets and the trainer may ask of any model family's processor."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from paddlemix.conversation import Box, Conversation
from paddlemix.processors.grounding import GroundedBox

IGNORED_LABEL = -100


@dataclass(frozen=True)
class Sample:
    """One conversation, ready for a model.

    Attributes:
        input_ids: int64[L].
        labels: int64[L], the token to predict at each place or -100; not shifted.
        position_ids: int64[3, L], the (t, h, w) rows of M-RoPE; None of a model that counts places by itself.
        media: the model's inputs for what the conversation shows, by their names in its `forward`. Axis 0 of each
            patches, images or videos, so that those of several samples are concatenated along it. An input that the
            conversation shows nothing for is left out.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    position_ids: np.ndarray | None = None
    media: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class SampleSize:
    """What a conversation will cost, known from text and the headers of images and videos.

    Attributes:
        tokens: all of them.
        image_tokens: those that stand for images and videos.
        target_tokens: those a model is trained to say; nothing predicts the first token.
        cut_tokens: those that were cut off before.
        images: images and videos that it shows.
    """

    tokens: int
    image_tokens: int
    target_tokens: int
    cut_tokens: int = 0
    images: int = 0


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
        """The size that `encode` will give, and the checks that need no pixels; called in several processes at once.

        Args:
            conversation: ends with an assistant's turn.

        Returns:
            Its tokens.

        Raises:
            RecordError: as `encode`.
        """
        ...

    def fingerprint(self) -> str:
        """A text that differs from another processor's wherever `measure` could."""
        ...


class Tokenizer(Protocol):
    """What batches and answers ask of a tokenizer.

    Attributes:
        pad_token_id: fills a batch.
        eos_token_id: ends an answer.
    """

    pad_token_id: int
    eos_token_id: int


class Processor(ConversationProcessor, Protocol):
    """What training, evaluation and the command-line tools ask beside samples; every family's processor has it."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's."""
        ...

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer whatever else a checkpoint's generation_config.json names as its end."""
        ...

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write everything that `from_pretrained` reads beside a model."""
        ...

    def encode_prompt(self, conversation: Conversation) -> Sample:
        """What a model answers to: the conversation, which ends with a user's turn, and the opening of the answer."""
        ...

    def image_size(self, conversation: Conversation, index: int = 0) -> tuple[int, int]:
        """Width and height in pixels of one of the conversation's images, upright."""
        ...

    def decode(
        self, ids: Sequence[int], *, skip_control_tokens: bool = False, skip_special_tokens: bool = False
    ) -> str:
        """The text of ids, names and boxes with their tags unless skipped by either name; never an exception."""
        ...

    def batch_decode(self, ids: Iterable[Any], *, skip_special_tokens: bool = False) -> list[str]:
        """The texts of rows of ids."""
        ...

    def box_in_pixels(self, box: Box, width: int, height: int) -> tuple[float, float, float, float]:
        """A box in pixels of an image of this size."""
        ...

    def parse_boxes(self, text: str, width: int, height: int) -> list[GroundedBox]:
        """The boxes in a raw answer about one image of this size."""
        ...

    def boxes_by_image(self, text: str, sizes: Sequence[tuple[int, int]]) -> list[list[GroundedBox]]:
        """The boxes in a raw answer about several images of these sizes."""
        ...

    def strip_tags(self, text: str) -> str:
        """A raw answer as a person reads it."""
        ...
