"""Qwen2-VL's processor: conversations, images and videos in, tokens, labels, positions and patches out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paddlemix.contract import AddedTokens, Grounding, Piece, PlaceSizes, Sample, SampleSize, ShownSize
from paddlemix.conversation import Conversation, RecordError, result_or_error
from paddlemix.models.qwen2_vl.chat_template import Qwen2VLChatTemplate
from paddlemix.models.qwen2_vl.images import Qwen2VLImageProcessor
from paddlemix.models.qwen2_vl.media import Media, MediaReader, MediaSizes, Shown
from paddlemix.models.qwen2_vl.positions import TimeScale, mrope_positions
from paddlemix.models.qwen2_vl.prompts import (
    IMAGE_PAD,
    MEDIA_INPUTS,
    VIDEO_PAD,
    as_image,
    as_video,
    check_media_counts,
    concatenated,
    count_placeholders,
    expand_placeholders,
)
from paddlemix.models.qwen2_vl.tokenizer import Qwen2Tokenizer
from paddlemix.models.qwen2_vl.videos import MAX_FRAME_PIXELS, Qwen2VLVideoProcessor
from paddlemix.names import END_OF_TURN, PREPROCESSOR_FILE, VIDEO_PREPROCESSOR_FILE
from paddlemix.processors.base import Limits, ProcessorBase
from paddlemix.processors.chat_template import ChatTemplate
from paddlemix.processors.grounding import TaggedPlaces
from paddlemix.processors.places import count_clamped
from paddlemix.processors.preprocessor import stored_settings, write_settings
from paddlemix.processors.settings import GivenSettings, MediaSettings, given_settings, log_once
from paddlemix.processors.sources import ProcessorSources

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

GROUNDING = TaggedPlaces(
    ref=("<|object_ref_start|>", "<|object_ref_end|>"),
    box=("<|box_start|>", "<|box_end|>"),
    quad=("<|quad_start|>", "<|quad_end|>"),
)


class Qwen2VLProcessor(ProcessorBase):
    """Everything between a conversation, or a rendered prompt, and the model's inputs.

    Args:
        tokenizer: the checkpoint's.
        image_processor: the checkpoint's, or with other pixel bounds.
        chat_template: the checkpoint's.
        video_processor: the checkpoint's, or with other settings; None cuts videos into patches as images.
        **limits: see `ProcessorBase`.

    Attributes:
        tokenizer: encodes texts.
        chat_template: renders messages, and puts control tokens round turns.
        grounding: the family's convention of boxes.
    """

    tokenizer: Qwen2Tokenizer
    chat_template: ChatTemplate
    grounding: Grounding = GROUNDING

    def __init__(
        self,
        tokenizer: Qwen2Tokenizer,
        image_processor: Qwen2VLImageProcessor,
        chat_template: ChatTemplate,
        video_processor: Qwen2VLVideoProcessor | None = None,
        **limits: Unpack[Limits],
    ) -> None:
        super().__init__(**limits)
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.video_processor = video_processor or Qwen2VLVideoProcessor.beside(image_processor)
        self.chat_template = chat_template
        self._read_own_tokens()
        self._media = MediaReader(self.image_processor, self.video_processor, self.image_opening)
        self._vision_token_ids = (tokenizer.token_id(IMAGE_PAD), tokenizer.token_id(VIDEO_PAD))

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """A turn's end: a base model's generation_config.json does not name it."""
        return (self.tokenizer.token_id(self.end_of_turn),)

    @property
    def end_of_turn(self) -> str:
        """The control token that the chat template writes behind an answer, or else the published one."""
        return self.chat_template.end_of_answer or END_OF_TURN

    def measure(self, conversation: Conversation) -> SampleSize:
        """Tell the size of a training sample, from text and the headers of images and videos.

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
        """Tell the sizes of many training samples; each header is read once, and texts are tokenized together.

        Args:
            conversations: each ends with an assistant's turn.

        Returns:
            The size of each of them, or what `measure` would raise.
        """
        media = self._media.remembering_sizes()
        prompts = [result_or_error(self._measured_prompt, conversation, media) for conversation in conversations]
        usable = [prompt[0] for prompt in prompts if not isinstance(prompt, RecordError)]
        counts = iter(self.tokenizer.count_pieces(usable))
        return [
            prompt
            if isinstance(prompt, RecordError)
            else result_or_error(self._size, conversation, *next(counts), *prompt)
            for conversation, prompt in zip(conversations, prompts, strict=True)
        ]

    def choose_added_tokens(self, choice: AddedTokens) -> None:
        """Read added tokens in texts or not, see `ProcessorBase`; those that the chat template writes are always read.

        Args:
            choice: "read", or "text".
        """
        super().choose_added_tokens(choice)
        self._read_own_tokens()

    def place_sizes(self, conversation: Conversation) -> PlaceSizes:
        """Read the sizes of all that a conversation's boxes may lie on; see `ProcessorBase.place_sizes`."""
        return self._place_sizes(self._media.measure(conversation))

    def choose_chat_template(self, name: str) -> None:
        """Write prompts by another of the checkpoint's templates from now on; see `ProcessorBase`."""
        self.chat_template = self.chat_template.chosen(name)

    @classmethod
    def _read(cls, sources: ProcessorSources, settings: MediaSettings, **limits: Unpack[Limits]) -> Self:
        """Make a processor of a checkpoint's files; the published max_pixels becomes 1280 tokens' worth."""
        given = given_settings(settings, max_frame_pixels=MAX_FRAME_PIXELS)
        stills, clips = (stored_settings(sources.media, file) for file in (PREPROCESSOR_FILE, VIDEO_PREPROCESSOR_FILE))
        images = Qwen2VLImageProcessor.from_published(stills.values, **given.images)
        videos = Qwen2VLVideoProcessor.beside(images)
        if clips.source is not None:
            videos = Qwen2VLVideoProcessor.from_published(clips.values)
        processor = cls(
            Qwen2Tokenizer.from_pretrained(sources.tokenizer),
            images,
            Qwen2VLChatTemplate.from_pretrained(sources.template),
            videos.with_settings(given.video),
            **limits,
        )
        log_once(processor._description(given))
        return processor

    def _save_settings(self, folder: Path) -> None:
        self.chat_template.save_pretrained(folder)
        write_settings(folder, PREPROCESSOR_FILE, self.image_processor.to_published())
        write_settings(folder, VIDEO_PREPROCESSOR_FILE, self.video_processor.to_published())

    def _what_sizes_depend_on(self) -> tuple[Any, ...]:
        return (
            self.tokenizer.backend.to_str(),
            self.tokenizer.added_tokens,
            self.chat_template.source,
            self.image_processor.to_published(),
            self.video_processor.to_published(),
        )

    def _sample(self, conversation: Conversation, *, add_generation_prompt: bool) -> Sample:
        most = None if add_generation_prompt else self.max_length
        media = self._media.read(conversation, partial(self._check_media, conversation, most))
        places = self._place_sizes(media.sizes)
        pieces, shown = self._prompt(conversation, media.sizes, places, add_generation_prompt=add_generation_prompt)
        ids, labels, loss_weights = self._labelled(
            *self.tokenizer.encode_pieces(pieces), conversation, is_prompt=add_generation_prompt
        )
        return Sample(
            input_ids=ids,
            labels=labels,
            position_ids=self._positions(ids, shown),
            media=self._inputs(media),
            loss_weights=loss_weights,
        )

    def _encode_texts(
        self, texts: list[str], images: list[Any], videos: list[Any]
    ) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        prompts = [list(self.chat_template.split(text)) for text in texts]
        check_media_counts(prompts, {IMAGE_PAD: len(images), VIDEO_PAD: len(videos)})
        stills = [as_image(image, self.image_opening) for image in images]
        media = self._media.cut(stills, [as_video(video) for video in videos])
        remaining = {IMAGE_PAD: iter(media.sizes.stills), VIDEO_PAD: iter(media.sizes.clips)}
        expanded = (expand_placeholders(pieces, remaining, self.image_processor.tokens)[0] for pieces in prompts)
        return [self.tokenizer.encode_pieces(pieces)[0] for pieces in expanded], self._inputs(media)

    def _inputs(self, media: Media) -> dict[str, np.ndarray]:
        """Make the model's inputs of what is shown, by name; a kin adds its own."""
        return {
            **concatenated(*MEDIA_INPUTS[IMAGE_PAD], media.image_patches, media.sizes.stills),
            **concatenated(*MEDIA_INPUTS[VIDEO_PAD], media.video_patches, media.sizes.clips),
        }

    def _measured_prompt(self, conversation: Conversation, media: MediaReader) -> tuple[list[Piece], list[Shown], int]:
        """Write a training prompt from headers, and count what is clamped; see `_prompt`."""
        sizes = media.measure(conversation)
        places = self._place_sizes(sizes)
        return *self._prompt(conversation, sizes, places), count_clamped(conversation, places)

    def _prompt(
        self,
        conversation: Conversation,
        sizes: MediaSizes,
        places: PlaceSizes,
        *,
        add_generation_prompt: bool = False,
    ) -> tuple[list[Piece], list[Shown]]:
        """Write a prompt; the placeholder of each image and video is repeated once a merged patch.

        Args:
            conversation: what is said.
            sizes: what it shows.
            places: what its boxes are counted on.
            add_generation_prompt: end with the opening of an assistant's turn.

        Returns:
            The pieces, and what is shown, images and videos in their order.

        Raises:
            RecordError: a box lies outside its image, or on none, there are not as many placeholders as images and
                videos, or the chat template does not show the record's tools.
        """
        turns = self._written(conversation, places)
        if self.allow_control_tokens:
            turns = [turn._replace(written=self.chat_template.read_again(turn.written)) for turn in turns]
        try:
            pieces = self.chat_template.pieces(turns, conversation.tools, add_generation_prompt=add_generation_prompt)
        except ValueError as error:
            raise RecordError(conversation.source, str(error)) from error
        shown = {IMAGE_PAD: sizes.stills, VIDEO_PAD: sizes.clips}
        self._check_placeholders(pieces, {pad: len(of_kind) for pad, of_kind in shown.items()}, conversation)
        remaining = {pad: iter(of_kind) for pad, of_kind in shown.items()}
        return expand_placeholders(pieces, remaining, self.image_processor.tokens)

    def _check_placeholders(self, pieces: list[Piece], given: dict[str, int], conversation: Conversation) -> None:
        for name, pad in (("image", IMAGE_PAD), ("video", VIDEO_PAD)):
            found, shown = count_placeholders(pieces, pad), given[pad]
            if found != shown:
                writers = "The chat template" + (" or a text" if self.allow_control_tokens else "")
                raise RecordError(
                    conversation.source,
                    f"the prompt has {found} {name} placeholders, but the record shows {shown} {name}s; expected one "
                    f"each. {writers} leaves out or adds `{pad}`.",
                )

    def _place_sizes(self, sizes: MediaSizes) -> PlaceSizes:
        """Tell what boxes are counted on."""
        return PlaceSizes(*([ShownSize(one.size, one.seen) for one in kind] for kind in (sizes.stills, sizes.clips)))

    def _size(
        self,
        conversation: Conversation,
        tokens: int,
        target_tokens: int,
        pieces: list[Piece],
        shown: list[Shown],
        clamped: int,
    ) -> SampleSize:
        """Tell what a prompt of so many tokens comes to when it is held to its length."""
        cut_tokens = 0
        if tokens > self.max_length:
            self._check_length(tokens, self._counted_end_of_media(pieces), conversation)
            ids, weights = self._fit_length(*self.tokenizer.encode_pieces(pieces), conversation)
            tokens, target_tokens, cut_tokens = len(ids), np.count_nonzero(weights[1:]), tokens - len(ids)
        image_tokens = sum(self.image_processor.tokens(one.grid) for one in shown)
        return SampleSize(tokens, image_tokens, target_tokens, cut_tokens, images=len(shown), clamped=clamped)

    def _positions(self, ids: np.ndarray, shown: list[Shown]) -> np.ndarray:
        """Lay out the positions int64[3, L] of ids int64[L]."""
        return mrope_positions(
            ids,
            [one.grid for one in shown],
            vision_token_ids=self._vision_token_ids,
            merge_size=self.image_processor.merge_size,
            time_scales=self._time_scales(shown),
        )

    def _read_own_tokens(self) -> None:
        """Let the template write the checkpoint's own tokens as such: those of turns, or all where texts spell none."""
        tokenizer = self.tokenizer
        own = tokenizer.own_tokens if tokenizer.added_tokens == "text" else tokenizer.own_special_tokens
        self.chat_template = self.chat_template.reading(own)

    def _time_scales(self, shown: list[Shown]) -> list[TimeScale] | None:
        """Tell how time goes on from one patch to the next; None where patches are counted."""
        del shown  # a kin's positions are seconds
        return None

    def _end_of_media(self, ids: np.ndarray) -> int:
        vision = np.flatnonzero(np.isin(ids, self._vision_token_ids))
        # The token behind the last vision token closes its span.
        return int(vision[-1]) + 2 if len(vision) else 0

    def _check_media(self, conversation: Conversation, most: int | None, shown: Sequence[Shown]) -> None:
        """Refuse what is shown where its tokens alone are more than `most`, before it is cut up."""
        tokens = sum(self.image_processor.tokens(one.grid) for one in shown)
        if most is not None and tokens > most:
            self._check_length(tokens, tokens, conversation)

    def _counted_end_of_media(self, pieces: list[Piece]) -> int:
        """Count what `_end_of_media` does from the pieces of a prompt."""
        shown = [place for place, piece in enumerate(pieces) if piece.control and piece.text in MEDIA_INPUTS]
        if not shown:
            return 0
        ((tokens, _),) = self.tokenizer.count_pieces([pieces[: shown[-1] + 1]])
        return tokens + 1

    def _remedy(self, conversation: Conversation) -> str:
        return "lower `max_pixels` so that images take fewer tokens." + (
            " Videos take fewer with a lower FPS or VIDEO_MAX_PIXELS." if conversation.videos else ""
        )

    def _description(self, given: GivenSettings) -> str:
        """Tell the settings in effect, and what they mean in tokens."""
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
