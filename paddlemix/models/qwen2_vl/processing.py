"""Qwen2-VL's processor: conversations, images and videos in, tokens, labels, positions and patches out."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paddlemix.contract import Piece, Sample, SampleSize, Written
from paddlemix.conversation import Conversation, RecordError, Turn, result_or_error
from paddlemix.files import write_json
from paddlemix.hub import local_folder
from paddlemix.models.qwen2_vl.images import Qwen2VLImageProcessor
from paddlemix.models.qwen2_vl.media import Grid, MediaReader, MediaSizes, Size
from paddlemix.models.qwen2_vl.positions import mrope_positions
from paddlemix.models.qwen2_vl.prompts import (
    IMAGE_PAD,
    MEDIA_INPUTS,
    VIDEO_PAD,
    PromptCalls,
    concatenated,
    count_placeholders,
    expand_placeholders,
)
from paddlemix.models.qwen2_vl.videos import MAX_FRAME_PIXELS, Qwen2VLVideoProcessor
from paddlemix.names import IGNORED_LABEL, PREPROCESSOR_FILE
from paddlemix.processors.chat_template import ChatTemplate, template_pieces
from paddlemix.processors.conversation_calls import ConversationCalls
from paddlemix.processors.grounding import TaggedThousandths
from paddlemix.processors.length import fit_length
from paddlemix.processors.settings import GivenSettings, MediaSettings, given_settings, log_once
from paddlemix.processors.tokenizer import Qwen2Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Unpack

VIDEO_PREPROCESSOR_FILE = "video_preprocessor_config.json"
GROUNDING = TaggedThousandths(ref=("<|object_ref_start|>", "<|object_ref_end|>"), box=("<|box_start|>", "<|box_end|>"))


class Qwen2VLProcessor(ConversationCalls, PromptCalls):
    """Everything between a conversation, or a rendered prompt, and the model's inputs.

    Args:
        tokenizer: the checkpoint's.
        image_processor: the checkpoint's, or with other pixel bounds.
        chat_template: the checkpoint's.
        video_processor: the checkpoint's, or with other settings; None cuts videos into patches as images.
        max_length: tokens a training record may have.
        truncate_text: cut text behind the last image of longer records; else they are an error.
        allow_control_tokens: read control tokens spelled in texts, such as "<|im_end|>", as control tokens. Only for
            texts that nobody else wrote: they could end a turn or open another.

    Attributes:
        grounding: the family's convention of boxes.
    """

    grounding = GROUNDING

    def __init__(
        self,
        tokenizer: Qwen2Tokenizer,
        image_processor: Qwen2VLImageProcessor,
        chat_template: ChatTemplate,
        video_processor: Qwen2VLVideoProcessor | None = None,
        *,
        max_length: int = 2048,
        truncate_text: bool = False,
        allow_control_tokens: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.video_processor = video_processor or Qwen2VLVideoProcessor.beside(image_processor)
        self.chat_template = chat_template
        self.max_length = max_length
        self.truncate_text = truncate_text
        self.allow_control_tokens = allow_control_tokens
        self._media = MediaReader(self.image_processor, self.video_processor)
        self._vision_token_ids = (tokenizer.token_id(IMAGE_PAD), tokenizer.token_id(VIDEO_PAD))

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        max_length: int = 2048,
        truncate_text: bool = False,
        allow_control_tokens: bool = False,
        **settings: Unpack[MediaSettings],
    ) -> Qwen2VLProcessor:
        """Read a checkpoint's tokenizer, template, and settings of images and videos.

        Args:
            name_or_path: a local folder, or a model `owner/name` of the hub.
            max_length: tokens a training record may have.
            truncate_text: cut text behind the last image of longer ones.
            allow_control_tokens: read control tokens spelled in texts as such.
            **settings: min_pixels, max_pixels and others (see `paddlemix.processors.settings.MediaSettings`). What is
                None is taken from the environment, then from the checkpoint; the published max_pixels becomes 1280
                tokens' worth.

        Returns:
            The processor.

        Raises:
            OSError: there is no such checkpoint, it cannot be fetched, or it has no tokenizer files.
            ValueError: a setting, or a variable of the environment, has a value that makes no sense.
        """
        folder, given = local_folder(name_or_path), given_settings(settings, max_frame_pixels=MAX_FRAME_PIXELS)
        image_processor = Qwen2VLImageProcessor.from_published(
            _read_settings(folder / PREPROCESSOR_FILE), **given.images
        )
        videos = _read_settings(folder / VIDEO_PREPROCESSOR_FILE)
        processor = cls(
            Qwen2Tokenizer.from_pretrained(folder),
            image_processor,
            ChatTemplate.from_pretrained(folder),
            (
                Qwen2VLVideoProcessor.from_published(videos)
                if videos
                else Qwen2VLVideoProcessor.beside(image_processor)
            ).with_settings(given.video),
            max_length=max_length,
            truncate_text=truncate_text,
            allow_control_tokens=allow_control_tokens,
        )
        log_once(processor._description(given))
        return processor

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the tokenizer, template, and settings of images and videos beside a model."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder)
        self.chat_template.save_pretrained(folder)
        write_json(folder / PREPROCESSOR_FILE, self.image_processor.to_published())
        write_json(folder / VIDEO_PREPROCESSOR_FILE, self.video_processor.to_published())

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """None: published generation_config.json files name what ends a turn."""
        return ()

    def measure(self, conversation: Conversation) -> SampleSize:
        """The size of a training sample, from text and the headers of images and videos.

        Args:
            conversation: ends with an assistant's turn.

        Returns:
            Its tokens.

        Raises:
            RecordError: as `encode`, as far as headers tell.
        """
        (measured,) = self.measure_many([conversation])
        if isinstance(measured, RecordError):
            raise measured
        return measured

    def measure_many(self, conversations: Sequence[Conversation]) -> list[SampleSize | RecordError]:
        """The sizes of many training samples; each header is read once, and texts are tokenized together.

        Args:
            conversations: each ends with an assistant's turn.

        Returns:
            The size of each of them, or what `measure` would raise.
        """
        media = self._media.remembering_sizes()
        prompts = [result_or_error(self._pieces, conversation, media) for conversation in conversations]
        usable = [prompt[0] for prompt in prompts if not isinstance(prompt, RecordError)]
        counts = iter(self.tokenizer.count_pieces(usable))
        return [
            prompt
            if isinstance(prompt, RecordError)
            else result_or_error(self._size, conversation, *next(counts), *prompt)
            for conversation, prompt in zip(conversations, prompts, strict=True)
        ]

    def fingerprint(self) -> str:
        """A text that differs from another processor's wherever `measure` could."""
        parts = (
            type(self).__name__,
            self.tokenizer.backend.to_str(),
            self.chat_template.source,
            self.image_processor.to_published(),
            self.video_processor.to_published(),
            (self.max_length, self.truncate_text, self.allow_control_tokens),
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def decode(
        self, ids: Sequence[int], *, skip_control_tokens: bool = False, skip_special_tokens: bool = False
    ) -> str:
        """The text of ids, int64[L] too, boxes and references with their tags unless skipped by either name."""
        skipped = skip_control_tokens or skip_special_tokens
        return self.tokenizer.decode(np.asarray(ids, dtype=np.int64).tolist(), skip_control_tokens=skipped)

    def _sample(self, conversation: Conversation, *, add_generation_prompt: bool) -> Sample:
        media = self._media.read(conversation)
        ids, trained, grids = self._tokenize(conversation, media.sizes, add_generation_prompt=add_generation_prompt)
        if not add_generation_prompt:
            ids, trained = self._fit_length(ids, trained, conversation)
        return Sample(
            input_ids=ids,
            labels=np.where(trained, ids, IGNORED_LABEL),
            position_ids=self._positions(ids, grids),
            media={
                **concatenated(*MEDIA_INPUTS[IMAGE_PAD], media.image_patches, media.sizes.image_grids),
                **concatenated(*MEDIA_INPUTS[VIDEO_PAD], media.video_patches, media.sizes.video_grids),
            },
        )

    def _image_sizes(self, conversation: Conversation) -> list[Size]:
        return self._media.image_sizes(conversation)

    def _tokenize(
        self, conversation: Conversation, sizes: MediaSizes, *, add_generation_prompt: bool = False
    ) -> tuple[np.ndarray, np.ndarray, list[Grid]]:
        """Ids int64[L], trained bool[L], and the grids of images and videos in the order of the sequence."""

        pieces, grids = self._prompt(conversation, sizes, add_generation_prompt=add_generation_prompt)
        ids, trained = self.tokenizer.encode_pieces(pieces)
        return ids, trained, grids

    def _pieces(self, conversation: Conversation, media: MediaReader) -> tuple[list[Piece], list[Grid]]:
        """A training prompt's pieces and grids, from headers."""
        return self._prompt(conversation, media.measure(conversation))

    def _prompt(
        self, conversation: Conversation, sizes: MediaSizes, *, add_generation_prompt: bool = False
    ) -> tuple[list[Piece], list[Grid]]:
        turns = [(turn.role, self._written(turn, conversation, sizes.images)) for turn in conversation.turns]
        pieces = list(self.chat_template.pieces(turns, add_generation_prompt=add_generation_prompt))
        return self._with_vision_tokens(pieces, sizes, conversation)

    def _size(
        self, conversation: Conversation, tokens: int, target_tokens: int, pieces: list[Piece], grids: list[Grid]
    ) -> SampleSize:
        """What a prompt of so many tokens comes to when it is held to its length."""
        cut_tokens = 0
        if tokens > self.max_length:
            ids, trained = self._fit_length(*self.tokenizer.encode_pieces(pieces), conversation)
            tokens, target_tokens, cut_tokens = len(ids), int(trained[1:].sum()), tokens - len(ids)
        image_tokens = sum(map(self.image_processor.tokens, grids))
        return SampleSize(tokens, image_tokens, target_tokens, cut_tokens, images=len(grids))

    def _with_vision_tokens(
        self, pieces: list[Piece], sizes: MediaSizes, conversation: Conversation
    ) -> tuple[list[Piece], list[Grid]]:
        """Repeat each image's and video's placeholder once a merged patch; and their grids in that order."""
        grids = {IMAGE_PAD: sizes.image_grids, VIDEO_PAD: sizes.video_grids}
        self._check_placeholders(pieces, grids, conversation)
        remaining = {pad: iter(of_kind) for pad, of_kind in grids.items()}
        return expand_placeholders(pieces, remaining, self.image_processor.tokens)

    def _check_placeholders(
        self, pieces: list[Piece], grids: dict[str, list[Grid]], conversation: Conversation
    ) -> None:
        for name, pad in (("image", IMAGE_PAD), ("video", VIDEO_PAD)):
            found, shown = count_placeholders(pieces, pad), len(grids[pad])
            if found != shown:
                writers = "The chat template" + (" or a text" if self.allow_control_tokens else "")
                raise RecordError(
                    conversation.source,
                    f"the prompt has {found} {name} placeholders, but the record shows {shown} {name}s; expected one "
                    f"each. {writers} leaves out or adds `{pad}`.",
                )

    def _written(self, turn: Turn, conversation: Conversation, sizes: list[Size]) -> list[Written]:
        try:
            written = self.grounding.write(turn, sizes)
        except ValueError as error:
            raise RecordError(conversation.source, str(error)) from error
        return [piece for one in written for piece in self._read_again(one)] if self.allow_control_tokens else written

    @staticmethod
    def _read_again(written: Written) -> Iterator[Written]:
        """Read the control tokens that a text spells as such."""
        if isinstance(written, Piece) and not written.control:
            yield from template_pieces(written.text)
        else:
            yield written

    def _positions(self, ids: np.ndarray, grids: list[Grid]) -> np.ndarray:
        merge_size = self.image_processor.merge_size
        return mrope_positions(ids, grids, vision_token_ids=self._vision_token_ids, merge_size=merge_size)

    def _fit_length(
        self, ids: np.ndarray, trained: np.ndarray, conversation: Conversation
    ) -> tuple[np.ndarray, np.ndarray]:
        vision = np.flatnonzero(np.isin(ids, self._vision_token_ids))
        return fit_length(
            ids,
            trained,
            conversation,
            max_length=self.max_length,
            truncate_text=self.truncate_text,
            # The token behind the last vision token closes its span.
            vision_end=int(vision[-1]) + 2 if len(vision) else 0,
            remedy="lower `max_pixels` so that images take fewer tokens."
            + (" Videos take fewer with a lower FPS or VIDEO_MAX_PIXELS." if conversation.videos else ""),
        )

    def _description(self, given: GivenSettings) -> str:
        """The effective settings, and what they mean in tokens."""
        still, moving = self.image_processor, self.video_processor
        area = (still.patch_size * still.merge_size) ** 2
        frames = (
            f"{moving.nframes} frames"
            if moving.nframes
            else f"{moving.fps:g} frames a second, {moving.min_frames} to {moving.max_frames} in all"
        )
        return (
            f"images: {still.min_pixels} to {still.max_pixels} pixels, {max(still.min_pixels // area, 1)} to "
            f"{still.max_pixels // area} tokens each; videos: {frames}, {moving.min_pixels} to {moving.max_pixels} "
            f"pixels a frame, {moving.total_pixels} pixels a video"
            + "".join(f"; {name} from {variable}" for name, variable in given.sources.items())
        )


def _read_settings(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
