"""What every family's processor does alike with a conversation."""

from __future__ import annotations

from abc import ABC, abstractmethod

from paddlemix.contract import Sample
from paddlemix.conversation import Conversation
from paddlemix.models.qwen2_vl.media import Size


class ConversationCalls(ABC):
    """Samples to train on and to answer, for a family that tells how a sample and its images' sizes are made."""

    def encode(self, conversation: Conversation) -> Sample:
        """A training sample.

        Args:
            conversation: ends with an assistant's turn.

        Returns:
            The sample.

        Raises:
            RecordError: an image or video cannot be read or has no place in the prompt, or a box names no image; an
                `OverlongError` where it has too many tokens.
        """
        return self._sample(conversation, add_generation_prompt=False)

    def encode_prompt(self, conversation: Conversation) -> Sample:
        """What a model answers to: the conversation and the opening of the assistant's turn; no labels are asked.

        Args:
            conversation: ends with a user's turn.

        Returns:
            The sample.

        Raises:
            RecordError: as `encode`, but for the length.
        """
        return self._sample(conversation, add_generation_prompt=True)

    def image_size(self, conversation: Conversation, index: int = 0) -> Size:
        """The size of one of the conversation's images.

        Args:
            conversation: its images' headers are read.
            index: into `conversation.images`.

        Returns:
            Width and height in pixels.

        Raises:
            RecordError: it cannot be opened.
        """
        return self._image_sizes(conversation)[index]

    @abstractmethod
    def _sample(self, conversation: Conversation, *, add_generation_prompt: bool) -> Sample: ...

    @abstractmethod
    def _image_sizes(self, conversation: Conversation) -> list[Size]: ...
