"""Placeholders of images and videos in Qwen2-VL's prompts, and the model's inputs that go with them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image

from paddlemix.contract import Piece
from paddlemix.conversation import Image, Video
from paddlemix.media.opening import ImageOpening
from paddlemix.models.qwen2_vl.media import Grid, Shown
from paddlemix.processors.batches import AskedMedium, opened_image

IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
# By the placeholder of an image or a video, the model's inputs for their patches and grids.
MEDIA_INPUTS = {
    IMAGE_PAD: ("pixel_values", "image_grid_thw"),
    VIDEO_PAD: ("pixel_values_videos", "video_grid_thw"),
}


def expand_placeholders(
    pieces: Iterable[Piece], remaining: dict[str, Iterator[Shown]], tokens: Callable[[Grid], int]
) -> tuple[list[Piece], list[Shown]]:
    """Repeat each image's and video's placeholder once a merged patch.

    Args:
        pieces: of one prompt.
        remaining: by placeholder, what is still to be shown; what this prompt shows is taken.
        tokens: how many tokens a grid becomes.

    Returns:
        The pieces, and what is shown, images and videos in the order of the prompt.
    """
    expanded, order = list(pieces), []
    for place in [place for place, piece in enumerate(expanded) if piece.control and piece.text in remaining]:
        piece = expanded[place]
        order.append(next(remaining[piece.text]))
        expanded[place] = piece._replace(repeat=tokens(order[-1].grid))
    return expanded, order


def count_placeholders(pieces: Iterable[Piece], pad: str) -> int:
    """Count how often the control token `pad` stands in a prompt."""
    return [piece.text for piece in pieces if piece.control].count(pad)


def check_media_counts(prompts: Sequence[Sequence[Piece]], given: Mapping[str, int]) -> None:
    """Refuse a call whose texts do not show what it was given.

    Args:
        prompts: the pieces of each text.
        given: by placeholder, how many images or videos there are.

    Raises:
        ValueError: placeholders and images or videos are not as many.
    """
    for name, pad in (("image", IMAGE_PAD), ("video", VIDEO_PAD)):
        found = sum(count_placeholders(pieces, pad) for pieces in prompts)
        if found != given[pad]:
            raise ValueError(
                f"`text` has {found} {name} placeholders `{pad}`, but `{name}s` has {given[pad]} {name}s; expected one "
                f"each. Render the messages with one part a {name}, and hand over what they show in that order."
            )


def as_image(source: Any, opening: ImageOpening) -> tuple[Image, PIL.Image.Image]:
    """Open an image that a call was given.

    Args:
        source: a path, an address or a PIL image, with settings or without.
        opening: how it is opened.

    Returns:
        What is asked of it, and the image in RGB, upright.

    Raises:
        ValueError: it is none of these, or cannot be used.
    """
    if isinstance(source, AskedMedium):
        image, opened = as_image(source.source, opening)
        return replace(image, settings=source.settings), opened
    name = "that was given" if isinstance(source, PIL.Image.Image) else str(source)
    return Image(name), opened_image(source, opening)


def as_video(source: Any) -> Video:
    """Make a `Video` of what a call was given.

    Args:
        source: one, a path, an address, or a list of frames' paths, with settings or without.

    Returns:
        The video.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(source, AskedMedium):
        return replace(as_video(source.source), settings=source.settings)
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
    patches_name: str, grids_name: str, patches: Sequence[np.ndarray], shown: Sequence[Shown]
) -> dict[str, np.ndarray]:
    """Make a model's inputs of what was cut up.

    Args:
        patches_name: the input that holds patches.
        grids_name: the input that holds grids.
        patches: float32[t * h * w, values] of each image or video.
        shown: what each comes to.

    Returns:
        float32[patches, values] and int64[images, 3] by these names; nothing where there is none.
    """
    if not patches:
        return {}
    return {patches_name: np.concatenate(patches), grids_name: np.array([one.grid for one in shown], dtype=np.int64)}
