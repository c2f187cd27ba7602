"""Arguments of a processor's call into lists, and rows of ids into a batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image

from paddlemix.media.images import open_image, upright
from paddlemix.media.opening import DEFAULT_OPENING, ImageOpening


class ModelInputs(dict[str, Any]):
    """A batch by name, whose entries are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(f"the batch has no `{name}`; it has {', '.join(self)}.") from error


@dataclass(frozen=True)
class AskedMedium:
    """An image or a video with settings of its own, as a message names it.

    Attributes:
        source: what the call takes otherwise.
        settings: for this one alone, an `ImageSettings` or a `VideoSettings`.
    """

    source: Any
    settings: Any


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Refuse an argument's value that is none of the choices."""
    if value not in choices:
        raise ValueError(f"`{name}` is {value!r}; expected one of {', '.join(map(str, choices))}.")


def text_list(text: str | Sequence[str] | None) -> list[str]:
    """Make a list of one prompt or several; none are refused."""
    texts = [text] if isinstance(text, str) else list(text or ())
    if not texts:
        raise ValueError("`text` is empty; expected a rendered prompt or a list of them.")
    return texts


def as_list(given: Any) -> list[Any]:
    """Make a list of one thing, several, or none."""
    if given is None:
        return []
    return list(given) if isinstance(given, (list, tuple)) else [given]


def flat(images: Any) -> list[Any]:
    """Make one list of an image, a list of them, or a list of lists."""
    return [image for entry in as_list(images) for image in as_list(entry)]


def path_of(argument: str, source: Any) -> str:
    """Return the path or address that an argument holds; refuse what is none."""
    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(f"`{argument}` holds a {type(source).__name__}; expected a path, an address or a PIL image.")
    return os.fspath(source)


def opened_image(source: Any, opening: ImageOpening = DEFAULT_OPENING) -> PIL.Image.Image:
    """Open an image that a call was given.

    Args:
        source: a path, an address or a PIL image.
        opening: how it is opened.

    Returns:
        The image in RGB, upright.

    Raises:
        ValueError: it is none of these, or cannot be used.
    """
    if isinstance(source, PIL.Image.Image):
        return upright(source, opening)
    return open_image(path_of("images", source), opening)


def padded(rows: list[np.ndarray], filler: int, side: str, *, padding: bool) -> dict[str, np.ndarray]:
    """Make one array of several rows.

    Args:
        rows: int64[L] each.
        filler: stands where a row is shorter than the longest.
        side: "left" or "right", where it stands.
        padding: False takes rows of one length only.

    Returns:
        input_ids and attention_mask, int64[B, L].

    Raises:
        ValueError: the rows differ in length, and `padding` is false.
    """
    lengths = [len(row) for row in rows]
    if not padding and len(set(lengths)) > 1:
        raise ValueError(f"the texts have {lengths} tokens, and `padding` is False; expected True for a batch of them.")
    ids = np.full((len(rows), max(lengths)), filler, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, row_ids, row_mask in zip(rows, ids, mask, strict=True):
        place = slice(len(row_ids) - len(row), None) if side == "left" else slice(len(row))
        row_ids[place], row_mask[place] = row, 1
    return {"input_ids": ids, "attention_mask": mask}


def as_tensors(batch: dict[str, np.ndarray]) -> dict[str, Any]:
    """Convert a batch's arrays to Paddle's tensors of the same shapes and dtypes."""
    import paddle  # here: a processor that gives arrays works without it

    return {name: paddle.to_tensor(array) for name, array in batch.items()}
