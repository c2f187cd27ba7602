"""What datasets and the trainer may ask of any model family's processor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from paddlemix.conversation import Conversation

IGNORED_LABEL = -100


@dataclass(frozen=True)
class Sample:
    """One conversation, ready for a model.

    Attributes:
        input_ids: int64[L].
        labels: int64[L], the token to predict at each place or -100; not shifted.
        position_ids: int64[3, L], the (t, h, w) rows of M-RoPE.
        pixel_values: float32[patches, 1176], all pictures one behind the other, or None.
        image_grid_thw: int64[pictures, 3], patches in time, height and width, or None.
        pixel_values_videos: float32[patches, 1176], all videos one behind the other, or None.
        video_grid_thw: int64[videos, 3], or None.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    position_ids: np.ndarray
    pixel_values: np.ndarray | None
    image_grid_thw: np.ndarray | None
    pixel_values_videos: np.ndarray | None = None
    video_grid_thw: np.ndarray | None = None


@dataclass(frozen=True)
class SampleSize:
    """What a conversation will cost, known from text and the headers of pictures and videos.

    Attributes:
        tokens: all of them.
        picture_tokens: those that stand for pictures and videos.
        target_tokens: those a model is trained to say; nothing predicts the first token.
        cut_tokens: those that were cut off before.
    """

    tokens: int
    picture_tokens: int
    target_tokens: int
    cut_tokens: int = 0


class ConversationProcessor(Protocol):
    """Turns conversations into samples."""

    def encode(self, conversation: Conversation) -> Sample:
        """Tokenize, read and cut up the pictures and videos.

        Args:
            conversation: ends with an assistant's turn.

        Returns:
            A training sample.

        Raises:
            RecordError: a picture or video cannot be read, or the record does not fit `max_length`.
        """
        ...

    def measure(self, conversation: Conversation) -> SampleSize:
        """The size that `encode` will give, and the checks that need no pixels; called from several threads at once.

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
