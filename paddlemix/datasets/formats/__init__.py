"""The record formats by the names that a config uses. A new format is one file here and one line below."""

from __future__ import annotations

from difflib import get_close_matches

from paddlemix.datasets.formats import caption, chatml, vqa
from paddlemix.datasets.formats.format import Format

FORMATS: dict[str, Format] = {
    "chatml_dataset": chatml.FORMAT,
    "caption_dataset": caption.FORMAT,
    "coco_caption": caption.FORMAT,
    "vqa_dataset": vqa.FORMAT,
    "coco_vqa": vqa.FORMAT,
}


def find_format(name: str) -> Format:
    """Look a format up.

    Args:
        name: a key of `FORMATS`.

    Returns:
        The format.

    Raises:
        ValueError: no format has this name.
    """
    if name in FORMATS:
        return FORMATS[name]
    nearest = get_close_matches(name, FORMATS, n=1, cutoff=0.0)[0]
    raise ValueError(f"no record format is named {name!r}. Did you mean {nearest!r}? Known: {', '.join(FORMATS)}.")
