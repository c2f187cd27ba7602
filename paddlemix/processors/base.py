"""What every family's processor does alike; a family's class fills in the rest."""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import PIL.Image

from paddlemix.contract import AddedTokens, Grounding, GroundingForm, PlaceSizes, Sample, Size, Tokenizer
from paddlemix.conversation import Conversation, RecordError
from paddlemix.hub import local_folder
from paddlemix.media.images import open_image
from paddlemix.media.kept import last_refetch
from paddlemix.media.opening import DEFAULT_OPENING, ImageOpening
from paddlemix.media.records import image_sizes
from paddlemix.media.video import OpenVideo, open_video
from paddlemix.names import IGNORED_LABEL
from paddlemix.processors.calls import MessageCalls
from paddlemix.processors.image_opening import given_opening, save_opening, sizing_settings
from paddlemix.processors.length import check_length, fit_length
from paddlemix.processors.places import check_places
from paddlemix.processors.settings import MediaSettings
from paddlemix.processors.sources import ProcessorSources
from paddlemix.processors.turns.checked import check_conversation
from paddlemix.processors.turns.written import WrittenTurn, written_turn

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class Limits(TypedDict, total=False):
    """The arguments of `ProcessorBase`, as families hand them on."""

    max_length: int
    truncate_text: bool
    allow_control_tokens: bool
    image_opening: ImageOpening


class ProcessorBase(MessageCalls):
    """Everything between a conversation, or a rendered prompt, and a model's inputs, but for what a family decides.

    A family's class adds `measure` and `stop_token_ids`, and the methods that are abstract here and in `MessageCalls`.

    Args:
        max_length: tokens a training record may have.
        truncate_text: cut text behind the last image of longer records; else they are an error.
        allow_control_tokens: read control tokens spelled in texts, such as "<|im_end|>", as control tokens. Only for
            texts that nobody else wrote: they could end a turn or open another.
        image_opening: how images are opened.

    Attributes:
        tokenizer: the checkpoint's.
        grounding: the family's convention of boxes.
    """

    tokenizer: Tokenizer
    grounding: Grounding

    def __init__(
        self,
        *,
        max_length: int = 2048,
        truncate_text: bool = False,
        allow_control_tokens: bool = False,
        image_opening: ImageOpening = DEFAULT_OPENING,
    ) -> None:
        self.max_length = max_length
        self.truncate_text = truncate_text
        self.allow_control_tokens = allow_control_tokens
        self.image_opening = image_opening

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        lora_path: str | os.PathLike[str] | None = None,
        max_length: int = 2048,
        truncate_text: bool = False,
        allow_control_tokens: bool = False,
        added_tokens: AddedTokens = "read",
        grounding: GroundingForm | None = None,
        chat_template: str | None = None,
        **settings: Unpack[MediaSettings],
    ) -> Self:
        """Read a checkpoint's tokenizer, and its settings of images and videos.

        Args:
            name_or_path: a local folder, or a model `owner/name` of the hub.
            lora_path: an adapter on it; the tokenizer, the chat template and the settings of images that its folder
                holds go before the model's.
            max_length: tokens a training record may have.
            truncate_text: cut text behind the last image of longer ones.
            allow_control_tokens: read control tokens spelled in texts as such.
            added_tokens: what texts hold that spell the checkpoint's own added tokens. "read" is for texts of the
                model's owner; "text" keeps them letters, as a server does with what its users write.
            grounding: the form of boxes and points; None takes what the checkpoint was saved with, or else the
                family's own. A family that has one form only refuses every value but None.
            chat_template: the name of one of the checkpoint's chat templates; None takes the one called "default", and
                for conversations with tools the one called "tool_use" where there is one.
            **settings: min_pixels, max_pixels and others (see `paddlemix.processors.settings.MediaSettings`). What is
                None is taken from the environment, then from the checkpoint. A family that has no such setting
                refuses every value but None.

        Returns:
            The processor.

        Raises:
            OSError: there is no such checkpoint, it cannot be fetched, or it has no tokenizer files.
            TypeError: an argument is none of the settings.
            ValueError: a setting, or a variable of the environment, has a value that makes no sense, or a file is
                damaged.
        """
        adapter = None if lora_path is None else local_folder(lora_path)
        sources = ProcessorSources.of(local_folder(name_or_path), adapter)
        processor = cls._read(
            sources,
            sizing_settings(settings),
            max_length=max_length,
            truncate_text=truncate_text,
            allow_control_tokens=allow_control_tokens,
            image_opening=given_opening(settings, sources.media),
        )
        processor.choose_added_tokens(added_tokens)
        if grounding is not None:
            processor.choose_grounding(grounding)
        if chat_template is not None:
            processor.choose_chat_template(chat_template)
        return processor

    def choose_added_tokens(self, choice: AddedTokens) -> None:
        """Read the checkpoint's own added tokens in texts from now on, or leave them letters.

        Args:
            choice: "read", or "text".

        Raises:
            ValueError: there is no such choice.
        """
        self.tokenizer.choose_added_tokens(choice)

    def choose_grounding(self, form: GroundingForm) -> None:
        """Write and read boxes and points in another form from now on, where the family has several.

        Args:
            form: one of `GroundingForm`.

        Raises:
            ValueError: the family has one form only, or not this one.
        """
        raise ValueError(
            f"`grounding` is {form!r}, but {type(self).__name__} has only one form of boxes and points; leave it out."
        )

    def choose_chat_template(self, name: str) -> None:
        """Write prompts by another of the checkpoint's templates from now on, where the family reads them.

        Args:
            name: of the template.

        Raises:
            ValueError: the family has one template for all checkpoints, or the checkpoint none of this name.
        """
        raise ValueError(
            f"`chat_template` is {name!r}, but {type(self).__name__} has one template for all checkpoints; omit it."
        )

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write everything that `from_pretrained` reads beside a model.

        Args:
            folder: of the model; made where it is missing.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder)
        self._save_settings(folder)
        save_opening(self.image_opening, folder)

    def encode(self, conversation: Conversation) -> Sample:
        """Make a training sample.

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
        """Make what a model answers to: the conversation and the opening of the assistant's turn; no labels are asked.

        Args:
            conversation: ends with a user's turn.

        Returns:
            The sample.

        Raises:
            RecordError: as `encode`, but for the length.
        """
        return self._sample(conversation, add_generation_prompt=True)

    def place_sizes(self, conversation: Conversation) -> PlaceSizes:
        """Read the sizes of all that a conversation's boxes may lie on.

        Args:
            conversation: the headers of what it shows are read.

        Returns:
            The sizes of its images; a family that reads videos adds those of their frames.

        Raises:
            RecordError: one cannot be opened.
        """
        return PlaceSizes.of_images(image_sizes(conversation, self.image_opening))

    def image_size(self, conversation: Conversation, index: int = 0) -> Size:
        """Read the size of one of the conversation's images.

        Args:
            conversation: its images' headers are read.
            index: into `conversation.images`.

        Returns:
            Width and height in pixels, upright.

        Raises:
            RecordError: an image cannot be opened.
        """
        return image_sizes(conversation, self.image_opening)[index]

    def open_image(self, path: str) -> PIL.Image.Image:
        """Decode an image as the model sees it, but for its size.

        Args:
            path: a local file, an http(s) address or a data: URL.

        Returns:
            The image in RGB, upright.

        Raises:
            ValueError: it cannot be used.
        """
        return open_image(path, self.image_opening)

    def open_video(self, path: str | tuple[str, ...]) -> AbstractContextManager[OpenVideo]:
        """Lend a video; see `paddlemix.media.video.open_video`.

        Args:
            path: a local file, an http(s) address, a data: URL, or the paths of the frames.

        Returns:
            What lends it; a ValueError comes from there.
        """
        return open_video(path, self.image_opening)

    def fingerprint(self) -> str:
        """Return a text that differs from another processor's wherever `measure` could."""
        limits = (self.max_length, self.truncate_text, self.allow_control_tokens)
        media = (self.image_opening, last_refetch())
        parts = (type(self).__name__, *self._what_sizes_depend_on(), limits, media)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def decode(
        self, ids: Sequence[int], *, skip_control_tokens: bool = False, skip_special_tokens: bool = False
    ) -> str:
        """Decode ids.

        Args:
            ids: int64[L] too.
            skip_control_tokens: leave them out, the tags of boxes and references among them.
            skip_special_tokens: the same, by the field's name.

        Returns:
            The text.
        """
        skipped = skip_control_tokens or skip_special_tokens
        return self.tokenizer.decode(np.asarray(ids, dtype=np.int64).tolist(), skip_control_tokens=skipped)

    def batch_decode(
        self, ids: Iterable[Any], *, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = False
    ) -> list[str]:
        """Decode rows of ids.

        Args:
            ids: int64[B, L], or a list of int64[L].
            skip_special_tokens: leave control tokens out.
            clean_up_tokenization_spaces: False; the field's calls name it, and these vocabularies have nothing to
                clean up.

        Returns:
            A text for each row.

        Raises:
            ValueError: `clean_up_tokenization_spaces` is true.
        """
        if clean_up_tokenization_spaces:
            raise ValueError("`clean_up_tokenization_spaces` is True, which would change texts; expected False.")
        return [self.decode(row, skip_special_tokens=skip_special_tokens) for row in ids]

    @classmethod
    @abstractmethod
    def _read(cls, sources: ProcessorSources, settings: MediaSettings, **limits: Unpack[Limits]) -> Self:
        """Make a processor of a checkpoint's files; `limits` are this class's own arguments."""

    @abstractmethod
    def _save_settings(self, folder: Path) -> None:
        """Write what `_read` reads beside the tokenizer."""

    @abstractmethod
    def _sample(self, conversation: Conversation, *, add_generation_prompt: bool) -> Sample:
        """Make a sample, to train on or to answer to."""

    @abstractmethod
    def _what_sizes_depend_on(self) -> tuple[Any, ...]:
        """Return what tells apart processors of the family that may measure differently, but for their limits."""

    @abstractmethod
    def _end_of_media(self, ids: np.ndarray) -> int:
        """Count the tokens up to the end of the last image or video in int64[L], 0 without one."""

    @abstractmethod
    def _remedy(self, conversation: Conversation) -> str:
        """Tell what a user may do about a record that is too long, beside raising `max_length`."""

    def _written(self, conversation: Conversation, sizes: PlaceSizes) -> list[WrittenTurn]:
        """Write all turns in the family's convention of boxes.

        Args:
            conversation: any.
            sizes: of its images and videos.

        Returns:
            The turns.

        Raises:
            RecordError: a turn's role, a name or a text is none, a box, a point or a quad lies outside what it lies on,
                or on what the conversation does not show, or the convention has no form for it.
        """
        check_conversation(conversation)
        check_places(conversation, sizes)
        try:
            return [written_turn(turn, self.grounding.write(turn, sizes)) for turn in conversation.turns]
        except ValueError as error:
            raise RecordError(conversation.source, str(error)) from error

    def _labelled(
        self, ids: np.ndarray, weights: np.ndarray, conversation: Conversation, *, is_prompt: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Hold a training sample to its length, and label it.

        Args:
            ids: int64[L].
            weights: float32[L], what each of them weighs.
            conversation: what they were made from.
            is_prompt: a prompt may have any length.

        Returns:
            input_ids, labels and loss_weights of a `Sample`, of what is left.

        Raises:
            OverlongError: there are more than `max_length`, and text may not or cannot be cut.
        """
        if not is_prompt:
            ids, weights = self._fit_length(ids, weights, conversation)
        is_learned = weights > 0
        labels = np.where(is_learned, ids, IGNORED_LABEL)
        return ids, labels, None if (weights[is_learned] == 1).all() else weights

    def _check_length(self, tokens: int, vision_end: int, conversation: Conversation) -> None:
        """Hold counts to `max_length`, before ids are made; see `check_length`."""
        check_length(
            tokens,
            vision_end,
            conversation,
            max_length=self.max_length,
            truncate_text=self.truncate_text,
            remedy=self._remedy(conversation),
        )

    def _fit_length(
        self, ids: np.ndarray, weights: np.ndarray, conversation: Conversation
    ) -> tuple[np.ndarray, np.ndarray]:
        """Hold ids int64[L] and weights float32[L] to `max_length`; see `fit_length`."""
        return fit_length(
            ids,
            weights,
            conversation,
            max_length=self.max_length,
            truncate_text=self.truncate_text,
            vision_end=self._end_of_media(ids),
            remedy=self._remedy(conversation),
        )
