"""Qwen2-VL's processor: conversations and pictures in, tokens, labels, positions and patches out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from paddlemix.conversation import Box, Conversation, Part, RecordError, Reference, Text
from paddlemix.files import write_json
from paddlemix.hub import local_folder
from paddlemix.models.qwen2_vl.positions import mrope_positions
from paddlemix.processors.chat_template import ChatTemplate
from paddlemix.processors.grounding import (
    BOX_END,
    BOX_START,
    REF_END,
    REF_START,
    box_in_pixels,
    box_text,
    parse_boxes,
    strip_tags,
)
from paddlemix.processors.image import Qwen2VLImageProcessor
from paddlemix.processors.interface import IGNORED_LABEL, Sample, SampleSize
from paddlemix.processors.picture import PictureError, open_picture, picture_size
from paddlemix.processors.text import Piece, Qwen2Tokenizer

IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
PREPROCESSOR_FILE = "preprocessor_config.json"

Size = tuple[int, int]


class Qwen2VLProcessor:
    """Everything between a conversation and the model's inputs.

    Args:
        tokenizer: the checkpoint's.
        image_processor: the checkpoint's, or with other pixel bounds.
        chat_template: the checkpoint's.
        max_length: tokens a training record may have; longer ones are an error, never cut.

    Attributes:
        box_in_pixels: a box in pixels of a picture; see `paddlemix.processors.grounding`.
        parse_boxes: the boxes in this family's raw answers.
        strip_tags: such an answer without its tags.
    """

    # What the family's tags mean is asked of its processor.
    box_in_pixels = staticmethod(box_in_pixels)
    parse_boxes = staticmethod(parse_boxes)
    strip_tags = staticmethod(strip_tags)

    def __init__(
        self,
        tokenizer: Qwen2Tokenizer,
        image_processor: Qwen2VLImageProcessor,
        chat_template: ChatTemplate,
        *,
        max_length: int = 2048,
    ) -> None:
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.chat_template = chat_template
        self.max_length = max_length
        self._vision_token_ids = (tokenizer.token_id(IMAGE_PAD), tokenizer.token_id(VIDEO_PAD))

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        max_length: int = 2048,
    ) -> Qwen2VLProcessor:
        """Read a checkpoint's tokenizer, template and picture settings.

        Args:
            name_or_path: a local folder, or a model `owner/name` of the hub.
            min_pixels: smallest area of a resized picture; None takes the checkpoint's.
            max_pixels: largest area; None takes the checkpoint's, but at most 1280 tokens' worth.
            max_length: tokens a training record may have.

        Returns:
            The processor.

        Raises:
            OSError: there is no such checkpoint, it cannot be fetched, or it has no tokenizer files.
        """
        folder = local_folder(name_or_path)
        path = folder / PREPROCESSOR_FILE
        published = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        bounds = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        overrides = {name: value for name, value in bounds.items() if value is not None}
        return cls(
            Qwen2Tokenizer.from_pretrained(folder),
            Qwen2VLImageProcessor.from_published(published, **overrides),
            ChatTemplate.from_pretrained(folder),
            max_length=max_length,
        )

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the tokenizer, template and picture settings beside a model."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder)
        self.chat_template.save_pretrained(folder)
        write_json(folder / PREPROCESSOR_FILE, self.image_processor.to_published())

    def encode(self, conversation: Conversation) -> Sample:
        """A training sample.

        Args:
            conversation: ends with an assistant's turn.

        Returns:
            The sample.

        Raises:
            RecordError: a picture cannot be read, a box names no picture, or more than `max_length` tokens.
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

    def measure(self, conversation: Conversation) -> SampleSize:
        """The size of a training sample, from text and picture headers.

        Args:
            conversation: ends with an assistant's turn.

        Returns:
            Its tokens.

        Raises:
            RecordError: as `encode`, as far as headers tell.
        """
        ids, trained, grids = self._tokenize(conversation, self._picture_sizes(conversation))
        self._check_length(conversation, len(ids))
        picture_tokens = sum(self.image_processor.tokens(grid) for grid in grids)
        return SampleSize(tokens=len(ids), picture_tokens=picture_tokens, target_tokens=int(trained.sum()))

    def picture_size(self, conversation: Conversation, index: int = 0) -> Size:
        """The size of one of the conversation's pictures.

        Args:
            conversation: its pictures' headers are read.
            index: into `conversation.pictures`.

        Returns:
            Width and height in pixels.

        Raises:
            RecordError: it cannot be opened.
        """
        return self._picture_sizes(conversation)[index]

    def decode(self, ids: Sequence[int], *, skip_control_tokens: bool = False) -> str:
        """The text of ids, boxes and references with their tags unless skipped."""
        return self.tokenizer.decode(ids, skip_control_tokens=skip_control_tokens)

    def _sample(self, conversation: Conversation, *, add_generation_prompt: bool) -> Sample:
        try:
            pictures = [open_picture(picture.path) for picture in conversation.pictures]
        except PictureError as error:
            raise RecordError(conversation.source, str(error)) from error
        sizes = [picture.size for picture in pictures]
        ids, trained, grids = self._tokenize(conversation, sizes, add_generation_prompt=add_generation_prompt)
        if not add_generation_prompt:
            self._check_length(conversation, len(ids))
        patches = [self.image_processor.patches(picture) for picture in pictures]
        return Sample(
            input_ids=ids,
            labels=np.where(trained, ids, IGNORED_LABEL),
            position_ids=self._positions(ids, grids),
            pixel_values=np.concatenate(patches) if patches else None,
            image_grid_thw=np.array(grids, dtype=np.int64) if grids else None,
        )

    def _picture_sizes(self, conversation: Conversation) -> list[Size]:
        try:
            return [picture_size(picture.path) for picture in conversation.pictures]
        except PictureError as error:
            raise RecordError(conversation.source, str(error)) from error

    def _tokenize(
        self, conversation: Conversation, sizes: list[Size], *, add_generation_prompt: bool = False
    ) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int, int]]]:
        """Ids int64[L], trained bool[L], and each picture's grid."""

        def part_pieces(part: Part) -> Iterator[Piece]:
            return self._part_pieces(part, conversation, sizes)

        grids = [self.image_processor.grid(*size) for size in sizes]
        pieces = self.chat_template.pieces(conversation, part_pieces, add_generation_prompt=add_generation_prompt)
        ids, trained = self.tokenizer.encode_pieces(self._with_picture_tokens(pieces, grids))
        return ids, trained, grids

    def _with_picture_tokens(self, pieces: Iterator[Piece], grids: list[tuple[int, int, int]]) -> Iterator[Piece]:
        """Repeat each picture's placeholder once a merged patch."""
        remaining = iter(grids)
        for piece in pieces:
            is_picture = piece.control and piece.text == IMAGE_PAD
            yield replace(piece, repeat=self.image_processor.tokens(next(remaining))) if is_picture else piece

    @staticmethod
    def _part_pieces(part: Part, conversation: Conversation, sizes: list[Size]) -> Iterator[Piece]:
        """A text, reference or box in Qwen2-VL's own writing."""
        if isinstance(part, Text):
            yield Piece(part.text)
        elif isinstance(part, Reference):
            yield from (Piece(REF_START, control=True), Piece(part.text), Piece(REF_END, control=True))
        elif isinstance(part, Box):
            if not 0 <= part.picture < len(sizes):
                raise RecordError(
                    conversation.source, f"a box lies on picture {part.picture}, but there are {len(sizes)} pictures."
                )
            corners = box_text(part, *sizes[part.picture])
            yield from (Piece(BOX_START, control=True), Piece(corners), Piece(BOX_END, control=True))
        else:
            raise AssertionError(f"{type(part).__name__} is the template's to write: {part}")

    def _positions(self, ids: np.ndarray, grids: list[tuple[int, int, int]]) -> np.ndarray:
        merge_size = self.image_processor.merge_size
        return mrope_positions(ids, grids, vision_token_ids=self._vision_token_ids, merge_size=merge_size)

    def _check_length(self, conversation: Conversation, length: int) -> None:
        if length > self.max_length:
            raise RecordError(
                conversation.source,
                f"{length} tokens, but `max_length` is {self.max_length}; raise it, or lower `max_pixels` so that "
                "pictures take fewer tokens (a record is never cut).",
            )
