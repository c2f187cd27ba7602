"""Qwen2-VL's processor as the field calls it: rendered texts, images and videos to a padded batch.

A rendered text is read as what it is: a control token in it is one, whoever wrote it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from PIL import Image

from paddlemix.contract import Piece
from paddlemix.conversation import Video
from paddlemix.media.images import open_image, upright
from paddlemix.models.qwen2_vl.images import Qwen2VLImageProcessor
from paddlemix.models.qwen2_vl.media import Grid, MediaReader
from paddlemix.models.qwen2_vl.videos import Qwen2VLVideoProcessor
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
from paddlemix.processors.chat_template import ChatTemplate, template_pieces
from paddlemix.processors.tokenizer import Qwen2Tokenizer

IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
# By the placeholder of an image or a video, the model's inputs for their patches and grids.
MEDIA_INPUTS = {
    IMAGE_PAD: ("pixel_values", "image_grid_thw"),
    VIDEO_PAD: ("pixel_values_videos", "video_grid_thw"),
}

ImageSource = str | os.PathLike[str] | Image.Image
VideoSource = str | os.PathLike[str] | Sequence[str] | Video
CutUp = tuple[Grid, np.ndarray]


class PromptCalls(MessageCalls):
    """`apply_chat_template`, the call, and `batch_decode`, for a processor that has the attributes below.

    Attributes:
        tokenizer: encodes the texts.
        image_processor: cuts images.
        video_processor: cuts videos.
        chat_template: renders messages.
    """

    tokenizer: Qwen2Tokenizer
    image_processor: Qwen2VLImageProcessor
    video_processor: Qwen2VLVideoProcessor
    chat_template: ChatTemplate

    def __call__(
        self,
        images: ImageSource | Sequence[Any] | None = None,
        text: str | Sequence[str] | None = None,
        videos: VideoSource | Sequence[VideoSource] | None = None,
        *,
        padding: bool = True,
        padding_side: Literal["left", "right"] | None = None,
        return_tensors: Literal["pd", "np"] = "pd",
    ) -> ModelInputs:
        """Encode rendered texts with what they show.

        A control token spelled in `text` is that control token: rendering keeps no one's words apart from the
        template's. For texts of strangers use `Conversation` with `encode` and `encode_prompt`, which do.

        Args:
            images: paths, addresses or PIL images in the order of the texts' `<|image_pad|>`, one for each; lists of
                them, one for each text, are taken one behind the other.
            text: one rendered prompt or several.
            videos: paths, addresses, lists of frames' paths, or `Video`s, in the order of the texts' `<|video_pad|>`.
            padding: pad to the longest text; False takes texts of one length only.
            padding_side: None for the tokenizer's own setting, and "left" where it has none: answers begin at the end.
            return_tensors: "pd" for Paddle's tensors, "np" for NumPy's arrays.

        Returns:
            input_ids and attention_mask int64[B, L]; pixel_values float32[patches, values] and image_grid_thw
            int64[images, 3] where there are images, pixel_values_videos and video_grid_thw where there are videos.

        Raises:
            ValueError: placeholders and images or videos are not as many, one cannot be read, texts differ in length
                without padding, or an argument has a value that it cannot have.
        """
        side = padding_side or self.tokenizer.settings.get("padding_side", "left")
        check_choice("padding_side", side, ("left", "right"))
        check_choice("return_tensors", return_tensors, ("pd", "np"))
        pieces = [list(template_pieces(one)) for one in text_list(text)]
        media = {IMAGE_PAD: flat(images), VIDEO_PAD: as_list(videos)}
        _check_counts(pieces, media)
        cut_up = {
            IMAGE_PAD: [self._cut_image(image) for image in media[IMAGE_PAD]],
            VIDEO_PAD: [self._cut_video(video) for video in media[VIDEO_PAD]],
        }
        rows = self._encode(pieces, {pad: [grid for grid, _ in found] for pad, found in cut_up.items()})
        batch = padded(rows, self.tokenizer.pad_token_id, side, padding=padding)
        for pad, names in MEDIA_INPUTS.items():
            grids, patches = [grid for grid, _ in cut_up[pad]], [patches for _, patches in cut_up[pad]]
            batch |= concatenated(*names, patches, grids)
        return ModelInputs(batch if return_tensors == "np" else as_tensors(batch))

    def _encode(self, texts: list[list[Piece]], grids: dict[str, list[Grid]]) -> list[np.ndarray]:
        """Ids int64[L] of each text, its placeholders repeated."""
        remaining = {pad: iter(of_kind) for pad, of_kind in grids.items()}
        expanded = (expand_placeholders(pieces, remaining, self.image_processor.tokens)[0] for pieces in texts)
        return [self.tokenizer.encode_pieces(pieces)[0] for pieces in expanded]

    def _cut_image(self, source: ImageSource) -> CutUp:
        image = upright(source) if isinstance(source, Image.Image) else open_image(path_of("images", source))
        return self.image_processor.grid(*image.size), self.image_processor.patches(image)

    def _cut_video(self, source: VideoSource) -> CutUp:
        return MediaReader(self.image_processor, self.video_processor).read_video(_video(source))


def expand_placeholders(
    pieces: Iterable[Piece], remaining: dict[str, Iterator[Grid]], tokens: Callable[[Grid], int]
) -> tuple[list[Piece], list[Grid]]:
    """Repeat each image's and video's placeholder once a merged patch.

    Args:
        pieces: of one prompt.
        remaining: by placeholder, the grids that are still to be shown; those of this prompt are taken.
        tokens: how many tokens a grid becomes.

    Returns:
        The pieces, and the grids of images and videos in the order of the prompt.
    """
    expanded, order = [], []
    for piece in pieces:
        if piece.control and piece.text in remaining:
            order.append(next(remaining[piece.text]))
            piece = replace(piece, repeat=tokens(order[-1]))
        expanded.append(piece)
    return expanded, order


def count_placeholders(pieces: Iterable[Piece], pad: str) -> int:
    """How often the control token `pad` stands in a prompt."""
    return sum(piece.control and piece.text == pad for piece in pieces)


def _check_counts(texts: list[list[Piece]], media: dict[str, list[Any]]) -> None:
    for name, pad in (("image", IMAGE_PAD), ("video", VIDEO_PAD)):
        found, given = sum(count_placeholders(pieces, pad) for pieces in texts), len(media[pad])
        if found != given:
            raise ValueError(
                f"`text` has {found} {name} placeholders `{pad}`, but `{'images' if pad == IMAGE_PAD else 'videos'}` "
                f"has {given} {name}s; expected one each. Render the messages with one part a {name}, and hand over "
                "what they show in that order."
            )


def _video(source: Any) -> Video:
    if isinstance(source, Video):
        return source
    if isinstance(source, (list, tuple)) and all(isinstance(frame, (str, os.PathLike)) for frame in source):
        return Video(tuple(map(os.fspath, source)))
    if isinstance(source, (str, os.PathLike)):
        return Video(os.fspath(source))
    raise ValueError(
        f"`videos` holds a {type(source).__name__}; expected a path, an address, a list of frames' paths or a `Video`."
    )


def concatenated(
    patches_name: str, grids_name: str, patches: Sequence[np.ndarray], grids: Sequence[Grid]
) -> dict[str, np.ndarray]:
    """Make a model's inputs of what was cut up.

    Args:
        patches_name: the input that holds patches.
        grids_name: the input that holds grids.
        patches: float32[t * h * w, values] of each image or video.
        grids: patches in time, height and width of each.

    Returns:
        float32[patches, values] and int64[images, 3] by these names; nothing where there is none.
    """
    if not patches:
        return {}
    return {patches_name: np.concatenate(patches), grids_name: np.array(grids, dtype=np.int64)}
