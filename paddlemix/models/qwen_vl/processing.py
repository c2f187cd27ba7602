"""Qwen-VL's processor: conversations and images in, tokens, labels and pixels out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import PIL.Image

from paddlemix.contract import Piece, Sample, SampleSize, Written
from paddlemix.conversation import Conversation, Image, RecordError, Text, Turn
from paddlemix.hub import local_folder
from paddlemix.media.images import image_size, open_image, upright
from paddlemix.models.qwen2_vl.media import Size, naming_the_record
from paddlemix.models.qwen_vl.chatml import DEFAULT_SYSTEM, ChatMLIds, ChatMLText
from paddlemix.models.qwen_vl.images import QwenVLImageProcessor
from paddlemix.models.qwen_vl.tags import GROUNDING, IMAGE_TAGS, ImageSpan
from paddlemix.models.qwen_vl.tokenizer import QwenTokenizer
from paddlemix.names import IGNORED_LABEL
from paddlemix.processors.batches import (
    ModelInputs,
    as_list,
    as_tensors,
    check_choice,
    flat,
    padded,
    path_of,
    text_list,
)
from paddlemix.processors.calls import MessageCalls
from paddlemix.processors.conversation_calls import ConversationCalls
from paddlemix.processors.length import fit_length
from paddlemix.processors.settings import MediaSettings, given_settings, log_once

if TYPE_CHECKING:
    from typing_extensions import Unpack

ImageSource = str | os.PathLike[str] | PIL.Image.Image


class QwenVLProcessor(ConversationCalls, MessageCalls):
    """Everything between a conversation, or a rendered prompt, and the model's inputs.

    Trained are every turn's start, end and line end, and what the assistant says but for images.

    Args:
        tokenizer: the checkpoint's.
        image_processor: the checkpoint's.
        max_length: tokens a training record may have.
        truncate_text: cut text behind the last image of longer records; else they are an error.
        allow_control_tokens: read special tokens spelled in texts, such as "<|im_end|>", as special tokens, but for
            those of images. Only for texts that nobody else wrote: they could end a turn or open another.

    Attributes:
        chat_template: renders messages; this family has one template for all checkpoints.
        grounding: the family's convention of boxes.
    """

    chat_template: ChatMLText
    grounding = GROUNDING

    def __init__(
        self,
        tokenizer: QwenTokenizer,
        image_processor: QwenVLImageProcessor,
        *,
        max_length: int = 2048,
        truncate_text: bool = False,
        allow_control_tokens: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.max_length = max_length
        self.truncate_text = truncate_text
        self.allow_control_tokens = allow_control_tokens
        self.chat_template = ChatMLText()
        self._chatml = ChatMLIds(tokenizer)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        max_length: int = 2048,
        truncate_text: bool = False,
        allow_control_tokens: bool = False,
        **settings: Unpack[MediaSettings],
    ) -> QwenVLProcessor:
        """Read a checkpoint's tokenizer and the size of its images.

        Args:
            name_or_path: a local folder, or a model `owner/name` of the hub.
            max_length: tokens a training record may have.
            truncate_text: cut text behind the last image of longer ones.
            allow_control_tokens: read special tokens spelled in texts as such.
            **settings: what other families let users set about images and videos; all None here, where every image
                becomes the same square. Variables of the environment are passed over.

        Returns:
            The processor.

        Raises:
            OSError: there is no such checkpoint, it cannot be fetched, or it has no qwen.tiktoken.
            TypeError: an argument is none of the settings.
            ValueError: a setting is made, or a file is damaged.
        """
        given_settings(settings, environment={})
        folder = local_folder(name_or_path)
        image_processor = QwenVLImageProcessor.from_pretrained(folder)
        _refuse_settings(settings, image_processor)
        tokenizer = QwenTokenizer.from_pretrained(folder)
        log_once(
            f"images: all are stretched to {image_processor.image_size} x {image_processor.image_size} pixels, "
            f"{tokenizer.n_queries} tokens each and 2 round them"
        )
        return cls(
            tokenizer,
            image_processor,
            max_length=max_length,
            truncate_text=truncate_text,
            allow_control_tokens=allow_control_tokens,
        )

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the tokenizer and the settings of images beside a model."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)

    @property
    def stop_token_ids(self) -> tuple[int, int]:
        """A turn's end, and the start of another; published generation_config.json files name neither."""
        return self.tokenizer.im_end_id, self.tokenizer.im_start_id

    def measure(self, conversation: Conversation) -> SampleSize:
        """The size of a training sample, from text and the headers of images.

        Args:
            conversation: ends with an assistant's turn.

        Returns:
            Its tokens.

        Raises:
            RecordError: as `encode`, as far as headers tell.
        """
        ids, trained = self._tokenize(conversation, self._image_sizes(conversation))
        kept, kept_trained = self._fit_length(ids, trained, conversation)
        return SampleSize(
            tokens=len(kept),
            image_tokens=self.tokenizer.n_queries * len(conversation.images),
            target_tokens=int(kept_trained[1:].sum()),
            cut_tokens=len(ids) - len(kept),
            images=len(conversation.images),
        )

    def fingerprint(self) -> str:
        """A text that differs from another processor's wherever `measure` could."""
        parts = (
            type(self).__name__,
            self.tokenizer.ranks,
            self.tokenizer.settings,
            self.image_processor.image_size,
            (self.max_length, self.truncate_text, self.allow_control_tokens),
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def decode(
        self, ids: Sequence[int], *, skip_control_tokens: bool = False, skip_special_tokens: bool = False
    ) -> str:
        """The text of ids, int64[L] too, boxes and references with their tags unless skipped by either name."""
        return self.tokenizer.decode(ids, skip_special_tokens=skip_control_tokens or skip_special_tokens)

    def __call__(
        self,
        images: ImageSource | Sequence[ImageSource] | None = None,
        text: str | Sequence[str] | None = None,
        videos: None = None,
        *,
        padding: bool = True,
        padding_side: Literal["left", "right"] | None = None,
        return_tensors: Literal["pd", "np"] = "pd",
    ) -> ModelInputs:
        """Encode rendered texts with the images that they show.

        A special token spelled in `text` is that token: rendering keeps no one's words apart from the template's. For
        texts of strangers use `Conversation` with `encode` and `encode_prompt`, which do. A path in a text opens
        nothing; only `images` does.

        Args:
            images: paths, addresses or PIL images in the order of the texts' `<img></img>`, one for each; lists of
                them, one for each text, are taken one behind the other.
            text: one rendered prompt or several.
            videos: None; this family reads images only.
            padding: pad to the longest text; False takes texts of one length only.
            padding_side: None for the tokenizer's own setting, and "left" where it has none: answers begin at the end.
            return_tensors: "pd" for Paddle's tensors, "np" for NumPy's arrays.

        Returns:
            input_ids and attention_mask int64[B, L]; pixel_values float32[images, 3, S, S] where there are images.

        Raises:
            ValueError: the texts show more or fewer images than `images` holds, one cannot be read, texts differ in
                length without padding, or an argument has a value that it cannot have.
        """
        side = padding_side or self.tokenizer.settings.get("padding_side", "left")
        check_choice("padding_side", side, ("left", "right"))
        check_choice("return_tensors", return_tensors, ("pd", "np"))
        if as_list(videos):
            raise ValueError("`videos` holds a video; Qwen-VL reads images only.")
        rows = [np.array(self.tokenizer.encode(one, allowed_special="all")) for one in text_list(text)]
        sources = flat(images)
        self._check_images(sum(int((row == self.tokenizer.img_start_id).sum()) for row in rows), len(sources))
        batch = padded(rows, self.tokenizer.pad_token_id, side, padding=padding)
        if sources:
            batch["pixel_values"] = self._stacked([_image(source) for source in sources])
        return ModelInputs(batch if return_tensors == "np" else as_tensors(batch))

    def _sample(self, conversation: Conversation, *, add_generation_prompt: bool) -> Sample:
        with naming_the_record(conversation):
            images = [open_image(image.path) for image in conversation.images]
        ids, trained = self._tokenize(
            conversation, [image.size for image in images], add_generation_prompt=add_generation_prompt
        )
        if not add_generation_prompt:
            ids, trained = self._fit_length(ids, trained, conversation)
        return Sample(
            input_ids=ids,
            labels=np.where(trained, ids, IGNORED_LABEL),
            media={"pixel_values": self._stacked(images)} if images else {},
        )

    def _tokenize(
        self, conversation: Conversation, sizes: list[Size], *, add_generation_prompt: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids int64[L] and trained bool[L]."""
        _refuse_videos(conversation)
        ids: list[int] = []
        trained: list[bool] = []
        for turn in _with_system(conversation.turns):
            content, said = self._content(turn, conversation, sizes)
            opening, newline = self._chatml.opening(turn.role), self._chatml.newline
            ids += [*self._chatml.turn(turn.role, content), *newline]
            trained += [True, *[False] * (len(opening) - 1), *said, True, *[True] * len(newline)]
        if add_generation_prompt:
            opening = self._chatml.opening("assistant")
            ids, trained = ids + opening, trained + [False] * len(opening)
        return np.array(ids, dtype=np.int64), np.array(trained, dtype=bool)

    def _content(self, turn: Turn, conversation: Conversation, sizes: list[Size]) -> tuple[list[int], list[bool]]:
        """The ids of what a turn says, and which of them are trained."""
        try:
            written = self.grounding.write(turn, sizes)
        except ValueError as error:
            raise RecordError(conversation.source, str(error)) from error
        pieces = [_tokenizers_own(one, trained=turn.role == "assistant") for one in written]
        special = set(self.tokenizer.special_tokens) - set(IMAGE_TAGS) if self.allow_control_tokens else ()
        ids, trained = self.tokenizer.encode_pieces(pieces, allowed_special=special)
        return ids.tolist(), trained.tolist()

    def _stacked(self, images: list[PIL.Image.Image]) -> np.ndarray:
        """float32[images, 3, S, S]."""
        return np.stack([self.image_processor.pixels(image) for image in images])

    def _image_sizes(self, conversation: Conversation) -> list[Size]:
        with naming_the_record(conversation):
            return [image_size(image.path) for image in conversation.images]

    @staticmethod
    def _check_images(shown: int, given: int) -> None:
        if shown != given:
            raise ValueError(
                f"`text` shows {shown} images `<img></img>`, but `images` holds {given}; expected one each. Render "
                "the messages with one part an image, and hand over what they show in that order."
            )

    def _fit_length(
        self, ids: np.ndarray, trained: np.ndarray, conversation: Conversation
    ) -> tuple[np.ndarray, np.ndarray]:
        span_ends = np.flatnonzero(ids == self.tokenizer.img_end_id)
        return fit_length(
            ids,
            trained,
            conversation,
            max_length=self.max_length,
            truncate_text=self.truncate_text,
            vision_end=int(span_ends[-1]) + 1 if len(span_ends) else 0,
            remedy=f"make the record shorter: each of its {len(conversation.images)} images takes "
            f"{self.tokenizer.n_queries + 2}.",
        )


def _refuse_settings(settings: MediaSettings, image_processor: QwenVLImageProcessor) -> None:
    given = [f"`{name}`" for name, value in settings.items() if value is not None]
    if given:
        raise ValueError(
            f"{', '.join(given)} cannot be set: Qwen-VL stretches every image to {image_processor.image_size} x "
            f"{image_processor.image_size} pixels and reads no videos. Remove it."
        )


def _refuse_videos(conversation: Conversation) -> None:
    if conversation.videos:
        raise RecordError(
            conversation.source,
            f"{len(conversation.videos)} videos are shown, but Qwen-VL reads images only; remove them or take "
            "Qwen2-VL.",
        )


def _with_system(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    if turns and turns[0].role == "system":
        return turns
    return (Turn("system", (Text(DEFAULT_SYSTEM),)), *turns)


def _tokenizers_own(written: Written, *, trained: bool) -> Piece | ImageSpan:
    """Convert what a turn consists of to what the tokenizer takes."""
    if isinstance(written, Piece):
        return replace(written, trained=trained)
    assert isinstance(written, Image), f"{type(written).__name__} was refused before: {written}"
    return ImageSpan(written.path)


def _image(source: ImageSource) -> PIL.Image.Image:
    return upright(source) if isinstance(source, PIL.Image.Image) else open_image(path_of("images", source))
