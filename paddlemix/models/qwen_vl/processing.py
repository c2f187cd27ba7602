"""Qwen-VL's processor: conversations and images in, tokens, labels and pixels out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from paddlemix.contract import Piece, PlaceSizes, Sample, SampleSize, Written
from paddlemix.conversation import Conversation, Image, ImageSettings, RecordError
from paddlemix.media.data_url import shown
from paddlemix.media.records import open_images
from paddlemix.models.qwen_vl.chatml import DEFAULT_SYSTEM, ChatMLIds, ChatMLText
from paddlemix.models.qwen_vl.images import QwenVLImageProcessor
from paddlemix.models.qwen_vl.tags import GROUNDING, IMAGE_TAGS, ImageSpan
from paddlemix.models.qwen_vl.tokenizer import QwenTokenizer
from paddlemix.names import END_OF_TURN
from paddlemix.processors.base import Limits, ProcessorBase
from paddlemix.processors.batches import AskedMedium, opened_image
from paddlemix.processors.places import count_clamped
from paddlemix.processors.settings import MediaSettings, given_settings, log_once
from paddlemix.processors.sources import ProcessorSources
from paddlemix.processors.turns.written import WrittenTurn

if TYPE_CHECKING:
    from typing_extensions import Unpack


class QwenVLProcessor(ProcessorBase):
    """Everything between a conversation, or a rendered prompt, and the model's inputs.

    Learned are every turn's start, end and line end, and what the assistant says but for images: so the published
    training has it, whoever speaks. Where a turn of a record has a weight of its own, only what the weights name is
    learned: start, end and line end weigh what their turn does. Of special tokens spelled in texts,
    `allow_control_tokens` reads all but those of images.

    Args:
        tokenizer: the checkpoint's.
        image_processor: the checkpoint's.
        **limits: see `ProcessorBase`.

    Attributes:
        tokenizer: encodes texts, and the places of images.
        chat_template: renders messages; this family has one template for all checkpoints.
        grounding: the family's convention of boxes.
    """

    tokenizer: QwenTokenizer
    chat_template: ChatMLText
    grounding = GROUNDING

    def __init__(
        self, tokenizer: QwenTokenizer, image_processor: QwenVLImageProcessor, **limits: Unpack[Limits]
    ) -> None:
        super().__init__(**limits)
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.chat_template = ChatMLText()
        self._chatml = ChatMLIds(tokenizer)

    @property
    def stop_token_ids(self) -> tuple[int, int]:
        """A turn's end, and the start of another; published generation_config.json files name neither."""
        return self.tokenizer.im_end_id, self.tokenizer.im_start_id

    @property
    def end_of_turn(self) -> str:
        """ChatML's, in which all of the family's prompts are."""
        return END_OF_TURN

    def measure(self, conversation: Conversation) -> SampleSize:
        """Tell the size of a training sample, from text and the headers of images.

        Args:
            conversation: ends with an assistant's turn.

        Returns:
            Its tokens.

        Raises:
            RecordError: as `encode`, as far as headers tell.
        """
        sizes = self.place_sizes(conversation)
        ids, weights = self._tokenize(conversation, sizes)
        kept, kept_weights = self._fit_length(ids, weights, conversation)
        return SampleSize(
            tokens=len(kept),
            image_tokens=self.tokenizer.n_queries * len(conversation.images),
            target_tokens=np.count_nonzero(kept_weights[1:]),
            cut_tokens=len(ids) - len(kept),
            images=len(conversation.images),
            clamped=count_clamped(conversation, sizes),
        )

    @classmethod
    def _read(cls, sources: ProcessorSources, settings: MediaSettings, **limits: Unpack[Limits]) -> QwenVLProcessor:
        """Make a processor of a checkpoint's files; the environment's sizes are ignored."""
        given_settings(settings, environment={})
        images = QwenVLImageProcessor.from_pretrained(sources)
        _refuse_settings(settings, images)
        tokenizer = QwenTokenizer.from_pretrained(sources.tokenizer)
        log_once(
            f"images: all are stretched to {images.image_size} x {images.image_size} pixels, "
            f"{tokenizer.n_queries} tokens each and 2 round them"
        )
        return cls(tokenizer, images, **limits)

    def _save_settings(self, folder: Path) -> None:
        self.image_processor.save_pretrained(folder)

    def _what_sizes_depend_on(self) -> tuple[Any, ...]:
        return self.tokenizer.ranks, self.tokenizer.settings, self.image_processor.image_size

    def _sample(self, conversation: Conversation, *, add_generation_prompt: bool) -> Sample:
        images = open_images(conversation, self.image_opening)
        sizes = PlaceSizes.of_images(image.size for image in images)
        ids, weights = self._tokenize(conversation, sizes, add_generation_prompt=add_generation_prompt)
        ids, labels, loss_weights = self._labelled(ids, weights, conversation, is_prompt=add_generation_prompt)
        return Sample(input_ids=ids, labels=labels, media=self._inputs(images), loss_weights=loss_weights)

    def _encode_texts(
        self, texts: list[str], images: list[Any], videos: list[Any]
    ) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        if videos:
            raise ValueError("`videos` holds a video; Qwen-VL reads images only.")
        for image in images:
            if isinstance(image, AskedMedium):
                raise ValueError(self._refusal("an image of the messages", image.settings))
        rows = [np.array(self.tokenizer.encode(text, allowed_special="all")) for text in texts]
        spans = sum(int((row == self.tokenizer.img_start_id).sum()) for row in rows)
        if spans != len(images):
            raise ValueError(
                f"`text` shows {spans} images `<img></img>`, but `images` holds {len(images)}; expected one each. "
                "Render the messages with one part an image, and hand over what they show in that order."
            )
        return rows, self._inputs([opened_image(image, self.image_opening) for image in images])

    def _inputs(self, images: Sequence[PIL.Image.Image]) -> dict[str, np.ndarray]:
        """Make pixel_values float32[images, 3, S, S]; nothing where there are none."""
        return {"pixel_values": np.stack([self.image_processor.pixels(image) for image in images])} if images else {}

    def _tokenize(
        self, conversation: Conversation, sizes: PlaceSizes, *, add_generation_prompt: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encode a conversation as int64[L], and tell what each of its ids weighs, float32[L]."""
        _refuse_videos(conversation)
        _refuse_tools(conversation)
        is_weighed = any(turn.weight is not None for turn in conversation.turns)
        self._refuse_sizes(conversation)
        ids: list[int] = []
        weights: list[float] = []
        for turn in _with_system(self._written(conversation, sizes)):
            content, said = self._content(turn)
            opening, newline = self._chatml.opening(turn.role), self._chatml.newline
            edge = turn.weight if is_weighed else 1.0
            ids += [*self._chatml.turn(turn.role, content), *newline]
            weights += [edge, *[0.0] * (len(opening) - 1), *said, edge, *[edge] * len(newline)]
        if add_generation_prompt:
            opening = self._chatml.opening("assistant")
            ids, weights = ids + opening, weights + [0.0] * len(opening)
        return np.array(ids, dtype=np.int64), np.array(weights, dtype=np.float32)

    def _content(self, turn: WrittenTurn) -> tuple[list[int], list[float]]:
        """Encode what a turn says, and tell what each of its ids weighs."""
        pieces = map(_for_tokenizer, turn.weighed().written)
        special = set(self.tokenizer.special_tokens) - set(IMAGE_TAGS) if self.allow_control_tokens else ()
        ids, weights = self.tokenizer.encode_pieces(pieces, allowed_special=special)
        return ids.tolist(), weights.tolist()

    def _refuse_sizes(self, conversation: Conversation) -> None:
        for image in conversation.images:
            if image.settings != ImageSettings():
                raise RecordError(conversation.source, self._refusal(f"image {shown(image.path)}", image.settings))

    def _refusal(self, name: str, settings: object) -> str:
        asked = ", ".join(f"`{key}`" for key, value in vars(settings).items() if value is not None)
        side = self.image_processor.image_size
        return (
            f"{name} asks for {asked}, but Qwen-VL stretches every image to {side} x {side} pixels; take it out or "
            "take Qwen2-VL."
        )

    def _end_of_media(self, ids: np.ndarray) -> int:
        span_ends = np.flatnonzero(ids == self.tokenizer.img_end_id)
        return int(span_ends[-1]) + 1 if len(span_ends) else 0

    def _remedy(self, conversation: Conversation) -> str:
        tokens = self.tokenizer.n_queries + 2
        return f"make the record shorter: each of its {len(conversation.images)} images takes {tokens}."


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


def _refuse_tools(conversation: Conversation) -> None:
    if conversation.tools or any(turn.calls or turn.role == "tool" for turn in conversation.turns):
        raise RecordError(
            conversation.source,
            "tools are listed or called, but Qwen-VL was trained on no form of them; take them out of the record or "
            "train a Qwen2-VL or Qwen2.5-VL.",
        )


def _with_system(turns: list[WrittenTurn]) -> list[WrittenTurn]:
    if turns and turns[0].role == "system":
        return turns
    return [WrittenTurn("system", [Piece(DEFAULT_SYSTEM)], weight=0.0), *turns]


def _for_tokenizer(written: Written) -> Piece | ImageSpan:
    """Convert what a turn consists of to what the tokenizer takes."""
    if isinstance(written, Piece):
        return written
    assert isinstance(written, Image), f"{type(written).__name__} was refused before: {written}"
    return ImageSpan(written.path)
